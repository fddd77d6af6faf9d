"""GLUE as its own server hands it out: names of folders, files and columns (https://gluebenchmark.com/tasks)."""

from collections.abc import Mapping, Sequence

FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "stsb": "STS-B",
    "qqp": "QQP",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}
"""Task to its folder."""
COLUMNS: Mapping[str, Mapping[str, str]] = {
    "mrpc": {"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"},
    "qqp": {"label": "is_duplicate"},
    "stsb": {"label": "score"},
    "mnli": {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},
}
"""Task to its columns of another name than on the Hub."""
COLA_COLUMNS = ("source", "label", "mark", "sentence")
"""Of CoLA's train.tsv and dev.tsv, which have no header."""


def official_header(first_row: Sequence[str]) -> tuple[str, ...] | None:
    """Return the columns of a file of CoLA that does not name them, None for all others."""
    is_row = len(first_row) == len(COLA_COLUMNS) and first_row[1] in ("0", "1")
    return COLA_COLUMNS if is_row else None
