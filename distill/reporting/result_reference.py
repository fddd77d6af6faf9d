"""The tables of the pages that list things: the records, and the keys of a configuration."""

import re

from distill.config import schema
from distill.config.reference import REQUIRED, read_sections
from distill.reporting.result_records import Records, markdown_table

EXPERIMENTS = {
    "ablation": "each part of the recipe, taken away or changed",
    "chaos": "runs that were killed and started again",
    "demo": "`make demo`, and its seeds in both precisions",
    "front": "the grid of depths and kinds of attention",
    "glue": "the default recipe on five GLUE tasks",
    "general": "raw text before any task, fitted mechanisms, copies by trial",
    "imdb": "long reviews",
    "kernels": "core attention alone",
    "klue": "mechanisms from scratch on KLUE, and distilled",
    "language_models": "causal language models from scratch, by length and depth",
    "long_pairs": "mechanisms on IMDB and SST-2",
    "mechanism_costs": "speed, memory and growth of every mechanism",
    "mechanisms": "every mechanism, distilled alike on real GLUE",
    "mechanisms_embedded": "the same on miniature GLUE",
    "narrow": "narrow students of five layers and their int8 files",
    "own_data": "data of one's own, with the recipe chosen from it",
    "published": "scores of others, with where each was read",
    "recipes": "ways to a student of three layers",
    "repeatability": "the same speed comparison several times",
    "speed": "speed of the students of `glue` and `front`",
    "training_speed": "training steps beside the usual ways, TextBrewer and the Trainer",
    "unlabelled": "texts without labels beside few labelled ones",
}


def index(records: Records) -> list[str]:
    """Every folder of records, what it holds, how many, and at which commits they were made."""
    rows = []
    for folder in sorted({path.parent.name for path in records.paths()}):
        names = [path for path in records.paths() if path.parent.name == folder]
        commits: set[str] = set()
        for path in names:
            if path.suffix == ".json":
                environment = records.json(str(path.with_suffix(""))).get("environment") or {}
                commits |= {environment["commit"][:7]} if environment.get("commit") else set()
        shown = sorted(commits)
        more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
        rows.append(
            [f"[{folder}](records/{folder})", EXPERIMENTS[folder], str(len(names)), ", ".join(shown[:4]) + more]
        )
    return markdown_table(["records", "of", "files", "commits"], rows)


def config_keys(records: Records) -> list[str]:
    """Every key of a configuration with its default and what the schema says about it; a nested section is one row."""
    rows = []
    for section in read_sections(schema.Config):
        if section.name.count(".") and not section.name.endswith("[]"):
            names = ", ".join(key.name.rpartition(".")[2] for key in section.keys)
            defaults = ", ".join(key.default for key in section.keys)
            rows.append([f"`{section.name}.{{{names}}}`", f"`{defaults}`", _cell(section.text)])
            continue
        for key in section.keys:
            default = key.default if key.default == REQUIRED else f"`{key.default}`"
            missing = [choice for choice in key.choices if not re.search(rf"\b{choice}\b", key.text)]
            more = f" Choices: {', '.join(key.choices)}." if missing else ""
            rows.append([f"`{key.name}`", default, _cell(key.text + more)])
    return markdown_table(["key", "default", "what it does"], rows)


def _cell(text: str) -> str:
    """Escape what would end a cell or start a tag."""
    return text.replace("|", "\\|").replace("<", "&lt;")
