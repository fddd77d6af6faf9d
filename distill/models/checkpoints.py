"""What is wrong with a checkpoint that transformers would load, or say little about: one judge for all models."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file

from distill.utils.errors import UserError
from distill.utils.files import read_json

WRAPPERS = {r"^(?:(?:module|_orig_mod)\.)+": ""}
"""What DistributedDataParallel and torch.compile put before the names of weights, for ``from_pretrained``."""
CALLS: dict[str, Any] = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
"""How models are called here, whatever their configuration says, for ``from_pretrained``."""
ADAPTER = re.compile(r"\.lora_|\.base_layer\.|^base_model\.model\.")
HARMLESS = re.compile(r"(?:^|\.)(?:pooler\..*|position_ids|token_type_ids)$")
"""Weights of an encoder that a classifier can do without, or makes anew."""
PROJECTIONS = re.compile(r"\.attention\.(?:self\.)?(?:query|key|value|[qkv]_lin)\.weight$")
TYPES_MATTER = ("bert", "electra", "albert")
"""Families that were trained with token types; others have one, whatever the tokenizer beside them tells apart."""
SMALL = 2**26
MOST_LAYERS = 1000
"""What a configuration may describe, in weights and in layers, without harm if they turn out not to be there."""
SIZED_BY_CONFIG = (
    *("bert", "efficient_bert", "frozen_bert_lstm"),
    *("roberta", "xlm-roberta", "camembert", "electra", "distilbert", "albert"),
)
"""Models of which a configuration says how many weights there are at least."""


def checkpoint_problem(checkpoint: str, *, fetch: bool = False) -> str | None:
    """Say what a checkpoint is that is no model, as :func:`folder_problem`; of a name of the Hub, by its files.

    Args:
        checkpoint: a folder, or a name of the Hub.
        fetch: look on the Hub for what its cache lacks.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        with suppress(OSError, ValueError):  # no name that the Hub can have, or nothing is known of it
            adapter = find_adapter_config_file(checkpoint, local_files_only=not fetch)
            folder = Path(adapter).parent if adapter else folder
    return folder_problem(folder)


def folder_problem(folder: Path, wanted: str = "") -> str | None:
    """Say what a folder is that holds no model, and what to give instead; None where it may hold one.

    Args:
        wanted: the name of the subfolder that is meant if there is one.
    """
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        try:
            base = read_json(adapter).get("base_model_name_or_path")
        except (OSError, ValueError, AttributeError):
            base = None
        return (
            f"is an adapter{f' of {base!r}' if base else ''}, not a model; merge it into its model (merge_and_unload "
            "of peft) and save that"
        )
    if (folder / "config.json").is_file() or not folder.is_dir():
        return None
    inside = [path.parent for path in folder.glob("*/config.json")]
    if not inside:
        return None
    best = max(inside, key=lambda path: (path.name == wanted, _step(path), path.name))
    return f"is no checkpoint: it has no config.json; did you mean {best}?"


def _step(path: Path) -> int:
    """Return the step of a Trainer's folder ``checkpoint-500``, -1 for any other name."""
    match = re.fullmatch(r"checkpoint-(\d+)", path.name)
    return int(match[1]) if match else -1


def check_size(config: PreTrainedConfig, folder: Path, who: str) -> None:
    """Refuse a configuration of far more weights than the files of ``folder`` can hold, before they are allocated.

    Every weight takes at least a byte. What is small, or has no weights here, passes: loading says what is wrong.
    """
    held = sum(path.stat().st_size for kind in ("*.safetensors", "*.bin") for path in folder.glob(kind))
    if not held or config.model_type not in SIZED_BY_CONFIG:
        return
    sizes = {
        name: _smallest(getattr(config, name, 0))
        for name in (
            *("vocab_size", "max_position_embeddings", "type_vocab_size", "num_labels", "hidden_size"),
            *("hidden_dim" if config.model_type == "distilbert" else "intermediate_size", "num_hidden_layers"),
        )
    }
    *tables, width, inner, layers = sizes.values()
    separate = int(getattr(config, "num_hidden_groups", layers))
    described = (getattr(config, "embedding_size", None) or width) * sum(tables) + 2 * separate * width * inner
    if described > max(held, SMALL) or layers > MOST_LAYERS:
        listed = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        raise UserError(
            f"{who}: its config.json describes {described:,} weights or more ({listed}), but its files hold "
            f"{held:,} bytes; put the config.json beside the weights that belongs to them"
        )


def _smallest(size: int | list[int] | None) -> int:
    """Return a size of a configuration; of one number for every layer the smallest."""
    return min(size, default=0) if isinstance(size, list) else int(size or 0)


def weights_problem(model: PreTrainedModel, info: Mapping[str, Any]) -> str | None:
    """Say which weights of a checkpoint the model has no place for, although it would answer otherwise with them.

    Heads of another purpose, as pretraining leaves them, are none of those.

    Args:
        model: as it was loaded.
        info: what ``from_pretrained`` returns beside it: keys that were missing, mismatched or unexpected.

    Returns:
        What it is and the way out, or None.
    """
    unexpected = sorted(info["unexpected_keys"])
    if any(ADAPTER.search(key) for key in unexpected):
        return "holds a LoRA adapter that is not merged; save it again after merge_and_unload of peft"
    pruned = [
        key
        for key, found, expected in info["mismatched_keys"]
        if PROJECTIONS.search(key) and found[0] < expected[0] and found[1:] == expected[1:]
    ]
    if pruned:
        return f"has pruned attention heads ({pruned[0]}), which transformers no longer loads; give one with all heads"
    relative = [key for key in unexpected if key.endswith("distance_embedding.weight")]
    if relative:
        kind = getattr(model.config, "position_embedding_type", None) or "relative"
        return (
            f"has positions of type {kind!r}, which transformers no longer computes; give one with absolute positions"
        )
    prefix = f"{model.base_model_prefix}."
    lost = [key for key in unexpected if _belongs_to_encoder(key, prefix) and not HARMLESS.search(key)]
    if lost:
        return (
            f"holds {len(lost)} weights such as {lost[0]} that its config.json has no place for; "
            "put the config.json beside the weights that belongs to them"
        )
    return None


def _belongs_to_encoder(key: str, prefix: str) -> bool:
    return key.startswith((prefix, "encoder.", "transformer.", "embeddings."))


def check_token_types(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    who: str,
    *,
    pairs: bool,
    called_without: bool = True,
) -> None:
    """Refuse a model that has no embedding for a token type that its tokenizer gives; UserError says so.

    Args:
        called_without: whether a model of one type by design is called without token types here.
    """
    types = getattr(config, "type_vocab_size", None)
    # None: unknown; 0, as of a DeBERTa: ignored
    if not types or (called_without and types == 1 and config.model_type not in TYPES_MATTER):
        return
    encoded = tokenizer("a", "a" if pairs else None, return_token_type_ids=True)
    highest = max(encoded["token_type_ids"])
    if highest >= types:
        what = "pairs of texts" if pairs else "texts"
        raise UserError(
            f"{who} has type_vocab_size {types} and its tokenizer gives {what} token type {highest}; "
            f"give a model with {highest + 1} token types or more"
        )
