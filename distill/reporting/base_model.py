"""Which model a student comes from in the end, and under which licence: what its card has to say."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import ModelCard, try_to_load_from_cache

from distill.utils.files import read_json

HUB_NAME = re.compile(r"[\w.-]+(?:/[\w.-]+)?")
UNKNOWN_LICENCE = "unknown: neither its card nor its configuration names one; ask its authors before you pass this on"


@dataclass(frozen=True)
class BaseModel:
    """The encoder that the student comes from: what the teacher was fine-tuned from, or one of the student's own."""

    name: str
    hub_name: str | None
    """What the Hub knows it by; None for a folder that does not say so."""
    licence: str | None
    """As its card or configuration names it; None where neither does."""
    taught_by: "BaseModel | None" = None
    """What the teacher was fine-tuned from, where that is another model."""


def describe_base_model(checkpoint: str | None) -> BaseModel | None:
    """Describe a checkpoint that a model started from, a folder or a name on the Hub; nothing is fetched.

    Returns None where there is none: the model was trained from scratch.
    """
    if checkpoint is None:
        return None
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        found = {name: try_to_load_from_cache(checkpoint, name) for name in ("README.md", "config.json")}
        card, config = (Path(path) if isinstance(path, str) else None for path in found.values())
        return BaseModel(checkpoint, checkpoint, _licence(card, config))
    card, config = folder / "README.md", folder / "config.json"
    # `_name_or_path` of a configuration is as often a folder of somebody's disk: only a card knows the Hub's name.
    origin = _card_data(card).get("base_model")
    hub_name = origin if isinstance(origin, str) and HUB_NAME.fullmatch(origin) else None
    return BaseModel(hub_name or folder.resolve().name, hub_name, _licence(card, config))


def _licence(card: Path | None, config: Path | None) -> str | None:
    """Return the licence that a model's card names, or its configuration."""
    named = _card_data(card).get("license") or _read_config(config).get("license")
    return named if isinstance(named, str) else None


def _card_data(card: Path | None) -> dict[str, object]:
    """Return what stands at the head of a model card; empty where there is none."""
    if card is not None and card.is_file():
        with suppress(OSError, ValueError):  # a page that is no model card
            return ModelCard.load(card).data.to_dict()
    return {}


def _read_config(path: Path | None) -> dict[str, object]:
    try:
        read = read_json(path) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
