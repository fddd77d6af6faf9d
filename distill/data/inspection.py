"""What no honest record should rest on silently: data that can be read and is probably not what was meant."""

import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.config.data_schema import DataConfig
from distill.data.batching import TokenizedExamples
from distill.data.labels import NO_LABEL
from distill.data.splits import Splits, row_id_doubt
from distill.data.token_inspection import inspect_tokens
from distill.tasks import CUSTOM, FEW_EXAMPLES, Task
from distill.utils.findings import WARNING, Finding, raise_on_error

MUCH_OVERLAP = 0.01
"""Share of validation that may stand in train, as some of GLUE's sets do."""
MAX_NAMED = 5


def print_doubts(
    task: Task,
    data: DataConfig,
    splits: Splits,
    validation: Mapping[str, TokenizedExamples],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Say on stderr, beside what a command prints for other programs, how data was read and what is doubtful in it."""
    for note in splits.notes:
        print(note, file=sys.stderr)
    raise_on_error(inspect_data(task, data, splits))
    raise_on_error(inspect_tokens(validation, tokenizer, data.max_length))


def inspect_data(task: Task, data: DataConfig, splits: Splits) -> Iterator[Finding]:
    """Yield a warning for everything in labels and texts that is likely to be a mistake."""
    if splits.class_counts is not None and task.name == CUSTOM:
        named = data.label_names is not None
        yield from _check_names(task.label_names, named)
        yield from _check_counts(task, splits.class_counts)
        if task.multi_label:
            yield from _check_label_sets(task, splits, splits.class_counts)
    yield from _check_validation(splits)
    for name, count in splits.num_half_blank.items():
        if count:
            rows = "1 pair has" if count == 1 else f"{count:,} pairs have"
            yield _warning(f"{name}: {rows} only one text; --data.drop_incomplete true leaves such rows out")


def _warning(line: str) -> Finding:
    return Finding(WARNING, f"data: {line}")


def _check_names(names: Sequence[str], named: bool) -> Iterator[Finding]:
    """Look for classes that are one, and for marks that are none; what the user has named is meant."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike["".join(unicodedata.normalize("NFKC", name).casefold().split())].append(name)
    for group in alike.values():
        if len(group) > 1:
            yield _warning(
                f"classes {' and '.join(map(repr, group))} differ in case, spaces or the form of characters alone; if "
                "they are one, write them alike"
            )
    marks = [name for name in names if name in NO_LABEL]
    others = [name for name in names if name not in NO_LABEL]
    if marks and len(others) > 1 and not named:
        yield _warning(
            f"{' and '.join(map(repr, marks))} {'is a class' if len(marks) == 1 else 'are classes'} here, and often "
            "marks rows without a label; if so, leave these rows out with --data.drop_incomplete true "
            f"--data.label_names {shown_list(others)}"
        )


def shown_list(names: Sequence[str]) -> str:
    """Return names as a list on a command line, shortened if there are many."""
    some = [name if name.replace("_", "").isalnum() else f'"{name}"' for name in names[:MAX_NAMED]]
    return f"'[{', '.join(some)}{', ...' if len(names) > MAX_NAMED else ''}]'"


def _check_counts(task: Task, counts: np.ndarray) -> Iterator[Finding]:
    """Look for labels that are none, and for classes of which nothing can be learned."""
    doubt = row_id_doubt(task, int(counts.sum()))
    if doubt:
        yield _warning(doubt)
        return
    rare = [repr(name) for name, count in zip(task.label_names, counts, strict=True) if count == 1]
    if rare:
        more = f" and {len(rare) - MAX_NAMED} more" if len(rare) > MAX_NAMED else ""
        one, many = ("label", "labels") if task.multi_label else ("class", "classes")
        which = f"{one} {rare[0]} has" if len(rare) == 1 else f"{many} {', '.join(rare[:MAX_NAMED])}{more} have"
        yield _warning(f"{which} one row in train, too few to learn or to measure; misspelt, or to be left out?")


def _check_label_sets(task: Task, splits: Splits, counts: np.ndarray) -> Iterator[Finding]:
    """Look for labels that all rows have or none has, and for what one label a row would do, of a multi-label task.

    Args:
        counts: (C,) rows of train that have each label.
    """
    labels = np.concatenate([splits.train.labels, splits.held_out.labels])
    for where, found in (("no row", counts == 0), ("every row", (labels == 1).all(0))):
        names = [repr(name) for name, is_so in zip(task.label_names, found, strict=True) if is_so]
        if names:
            more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
            which = f"label {names[0]} is" if len(names) == 1 else f"labels {', '.join(names[:MAX_NAMED])}{more} are"
            yield _warning(f"{which} in {where} of train, which teaches nothing; leave it out, or add other rows")
    sizes = labels.sum(1)
    if (sizes == 1).all():
        yield _warning(
            "every row of train has exactly one label; if that is so by nature, leave out data.multi_label, and the "
            "models know it"
        )
    if len(splits.held_out) < FEW_EXAMPLES:
        yield _warning(
            f"held-out train has {len(splits.held_out)} rows, few to choose the threshold of all answers on; give "
            "more rows, or raise data.held_out_fraction"
        )


def _check_validation(splits: Splits) -> Iterator[Finding]:
    """Look for a validation that is small, or that was trained on."""
    known = {texts for part in (splits.train, splits.held_out) for texts in part.texts}
    for name, part in splits.validation.items():
        if len(part) < FEW_EXAMPLES:
            rows = "1 row" if len(part) == 1 else f"{len(part)} rows"
            yield _warning(
                f"{name} has {rows}: its scores say little, and the intervals of so few examples are not to be "
                f"trusted; give at least {FEW_EXAMPLES}, better 1,000"
            )
        shared = sum(texts in known for texts in part.texts)
        if shared >= MUCH_OVERLAP * len(part) and shared:
            yield _warning(
                f"{shared:,} of {len(part):,} texts of {name} ({100 * shared / len(part):.1f} %) stand in train too: "
                "scores on them tell what was learned by heart; leave them out of one of the two"
            )
