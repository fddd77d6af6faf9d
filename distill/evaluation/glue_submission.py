"""Predictions on GLUE's test splits, whose labels only its server knows, in the files that the server reads.

Format: https://gluebenchmark.com/faq. The diagnostic set AX belongs to no task here and is not written.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from distill.data.batching import TokenizedExamples
from distill.data.splits import EMBEDDED, Examples, load_unlabelled
from distill.evaluation.metrics import predictions
from distill.evaluation.predict import predict_logits
from distill.tasks import Task
from distill.utils.errors import UserError, choices_hint
from distill.utils.files import write_atomically

FILES = {
    "cola": {"test": "CoLA.tsv"},
    "sst2": {"test": "SST-2.tsv"},
    "mrpc": {"test": "MRPC.tsv"},
    "stsb": {"test": "STS-B.tsv"},
    "qqp": {"test": "QQP.tsv"},
    "mnli": {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
    "qnli": {"test": "QNLI.tsv"},
    "rte": {"test": "RTE.tsv"},
    "wnli": {"test": "WNLI.tsv"},
}
"""Task to its test splits and the file of each."""
NAMED = ("mnli", "qnli", "rte")
"""Tasks whose classes the server reads by name; those of the others by number."""


def load_test_texts(task: Task, source: str | None) -> dict[str, Examples]:
    """Read the test splits of a GLUE task; a label column, where there is one, is not looked at.

    Raises:
        UserError: the server does not know the task, or the source has no test split.
    """
    if task.name not in FILES:
        raise UserError(f"--submission: GLUE's server has no task {task.name}; {choices_hint(task.name, FILES)}")
    if source == EMBEDDED:
        raise UserError(f"--submission: the embedded {task.name} has no test split; leave it out, or give --data.dir")
    return load_unlabelled(task, source, task.test_splits)


def submission_text(task: Task, logits: np.ndarray) -> str:
    """Return a file of the server from logits (n, num_labels): a header, then index and prediction of every row."""
    predicted = predictions(task, logits)
    if task.is_regression:
        answers = [f"{score:.3f}" for score in np.clip(predicted, *(task.label_range or (-np.inf, np.inf)))]
    else:
        answers = [task.label_names[label] if task.name in NAMED else str(label) for label in predicted]
    return "".join(["index\tprediction\n", *(f"{index}\t{answer}\n" for index, answer in enumerate(answers))])


def write_submission(
    task: Task,
    models: Mapping[str, PreTrainedModel],
    tests: Mapping[str, TokenizedExamples],
    folder: Path,
    *,
    device: torch.device | str,
) -> list[Path]:
    """Write every model's predictions on the test splits to ``<folder>/<role>/`` and return the files."""
    written = []
    for role, model in models.items():
        for split, examples in tests.items():
            logits = predict_logits(model, examples, device=device)
            written.append(folder / role / FILES[task.name][split])
            write_atomically(written[-1], submission_text(task, logits))
    return written
