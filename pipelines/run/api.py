"""The way in from Python: load a configuration, run it, read its record, predict with its student.

Every function raises :class:`distill.utils.errors.UserError` where a command ends with exit code 2: for a mistake that
the caller can mend, with a message that names the thing and the way out.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, GradientState

from distill.config.parsing import parse_config
from distill.config.schema import Config
from distill.config.validation import check_config
from distill.evaluation.predict import Prediction, predict
from distill.evaluation.record import read_record
from distill.models.loading import Classifier, load_classifier
from distill.utils.cli import quiet_libraries, tensors_alone
from distill.utils.errors import UserError
from distill.utils.findings import raise_on_error
from pipelines.run.phases import run_phases
from pipelines.run.preflight import prepare_run
from students import STUDENTS

__all__ = ["Prediction", "UserError", "distill", "load_config", "load_student", "predict", "read_record"]


def load_config(file: Path | str, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a YAML file, with the values of dotted keys such as ``student.num_layers`` in place of its own.

    ``python pipelines/distill.py --help`` and configs/README.md list the keys.

    Raises:
        UserError: the file cannot be read, a key does not exist, or a value or a combination is impossible.
    """
    arguments = ["--config", str(file)]
    for key, value in (overrides or {}).items():
        try:
            arguments += [f"--{key}", str(value) if isinstance(value, str | Path) else json.dumps(value)]
        except TypeError as error:
            raise UserError(f"{key}: {error}; give numbers, text, lists and dicts") from error
    return parse_config(arguments, STUDENTS)


def distill(config: Config) -> None:
    """Fine-tune the teacher, distil the student, train the baseline and compare them, all in ``config.run_dir``.

    What an earlier call left there is not done again: an interrupted run resumes, a finished one returns at once.
    ``config.run_dir`` then holds ``record.json``, ``report.html`` and the folder ``student``. Minutes to hours; the
    first lines printed say how long. Library warnings and download bars are off from then on, as in the commands.

    Raises:
        UserError: the data, the teacher, the run folder or the machine do not allow the run.
    """
    quiet_libraries()
    check_config(config, STUDENTS)
    try:
        with tensors_alone():
            opened = prepare_run(config, raise_on_error)
            if opened is not None:
                run_phases(*opened)
    finally:  # accelerate keeps precision and devices for the whole process, where the next run may want others
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def load_student(folder: Path | str) -> Classifier:
    """Load a student, on the CPU and in eval mode, from a run folder or from the student's own folder.

    Its ``model`` is a ``PreTrainedModel`` with logits (B, C), its ``tokenizer`` the one that it was trained with. Code
    in the folder is not run: the classes are those of the package ``students``.

    Raises:
        UserError: there is no student, or its files are damaged.
    """
    inside = Path(folder) / "student"
    return load_classifier(inside if inside.is_dir() else folder, "student")
