"""The generated tables of the pages: what stands between ``<!-- table: NAME -->`` and ``<!-- end -->``."""

import re
from collections.abc import Callable
from pathlib import Path

from distill.reporting import (
    result_general,
    result_glue,
    result_quality,
    result_reference,
    result_speed,
    result_systems,
    result_text,
)
from distill.reporting.result_records import Records
from distill.utils.errors import UserError, choices_hint

RenderTable = Callable[[Records], list[str]]
TABLES: dict[str, RenderTable] = {
    render.__name__.replace("_", "-"): render
    for render in (
        *(result_glue.glue_retention, result_glue.glue_scores, result_glue.glue_tasks),
        *(result_glue.glue_aims, result_glue.glue_attention_cost),
        *(result_glue.glue_changes, result_glue.glue_runs, result_glue.published_glue, result_quality.unlabelled),
        *(result_quality.mechanisms, result_quality.mechanisms_longer),
        *(result_quality.ablation, result_quality.front),
        *(
            result_quality.long_documents,
            result_quality.own_data,
            result_quality.run_output,
            result_quality.demo_output,
        ),
        result_quality.demo,
        *(result_speed.glue_speed, result_speed.glue_latency, result_speed.speed_variants),
        result_speed.kernels,
        *(result_speed.training_speed, result_speed.repeatability, result_speed.deployed, result_speed.target_speed),
        *(result_speed.kill_tests, result_speed.checkpoint_cost),
        result_general.student_stages,
        *(result_reference.index, result_reference.config_keys),
        *(result_text.language_models, result_text.language_model_steps, result_text.language_model_windows),
        result_text.language_models_distilled,
        *(
            result_systems.klue_systems,
            result_systems.klue_costs,
            result_systems.long_pairs,
            result_systems.long_pairs_longer,
            result_systems.long_pairs_costs,
        ),
    )
}
"""Name on the page to the function that renders it: the function's own name, with hyphens."""
START = re.compile(r"<!-- table: (.*) -->")
END = "<!-- end -->"


def find_pages(root: Path) -> list[Path]:
    """Return README.md, and of every folder of ``root`` that is not hidden its page and others that hold a table."""
    return [root / "README.md", *(path for path in sorted(root.glob("[!.]*/*.md")) if _is_page(path))]


def _is_page(path: Path) -> bool:
    if path.name == "README.md":
        return True
    return any(map(START.fullmatch, path.read_text(encoding="utf-8").splitlines()))


def render_page(text: str, page: str, records: Records) -> tuple[str, list[str]]:
    """Return a page with every generated table rendered anew, and the names of those that were different.

    Args:
        text: of the page.
        page: its name, for messages.
        records: what the tables are rendered from.

    Raises:
        UserError: a table has no such name, is not closed, or needs a record that is not there.
    """
    lines, rendered, differing = text.splitlines(), list[str](), list[str]()
    number = 0
    while number < len(lines):
        rendered.append(lines[number])
        number += 1
        marker = START.fullmatch(rendered[-1])
        if marker is None:
            continue
        name, first = marker[1], number
        end = _end_of_table(lines, first, f"{page}:{first}: table {name}")
        table = _render(name, f"{page}:{first}", records)
        if table != lines[first:end]:
            differing.append(name)
        rendered += table
        number = end
    return "\n".join(rendered) + "\n", differing


def _end_of_table(lines: list[str], first: int, what: str) -> int:
    """Return the line of the closing marker."""
    for number in range(first, len(lines)):
        if lines[number] == END:
            return number
        if START.fullmatch(lines[number]):
            break
    raise UserError(f"{what} is not closed: write {END} on a line of its own behind it")


def _render(name: str, where: str, records: Records) -> list[str]:
    if name not in TABLES:
        raise UserError(f"{where}: no table {name!r}; {choices_hint(name, TABLES)}")
    try:
        return TABLES[name](records)
    except UserError as error:
        raise UserError(f"{where}: table {name}: {error}") from error
    except KeyError as error:
        raise UserError(f"{where}: table {name}: a record or its description lacks {error}") from error
