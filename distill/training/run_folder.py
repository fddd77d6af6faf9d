"""The run folder: fixed names, what is finished, and a refusal to mix two configurations."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.config.parsing import differing_keys, load_config, save_config
from distill.config.schema import Config
from distill.models.saving import save_pretrained
from distill.training.checkpoints import remove_checkpoints
from distill.utils.errors import UserError
from distill.utils.files import UNFINISHED, clean_up, is_leftover, replace_directory, write_atomically


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder and the marks of its finished phases."""

    path: Path

    @property
    def teacher(self) -> Path:
        return self.path / "teacher"

    @property
    def student(self) -> Path:
        return self.path / "student"

    @property
    def baseline(self) -> Path:
        return self.path / "baseline"

    @property
    def record(self) -> Path:
        return self.path / "record.json"

    def phase(self, name: str) -> Path:
        """Return the folder of a phase's checkpoints."""
        return self.path / "checkpoints" / name

    def result(self, name: str) -> dict[str, Any] | None:
        """Return what a finished phase wrote, or None if it is not finished."""
        path = self.phase(name) / "result.json"
        if not path.exists():
            return None
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise UserError(f"{path} is torn; remove {path.parent} to run this phase again") from error

    def finish(self, name: str, result: dict[str, Any]) -> None:
        """Mark a phase as finished and drop the checkpoints that only resuming needed."""
        write_atomically(self.phase(name) / "result.json", json.dumps(result, indent=1))
        remove_checkpoints(self.phase(name))

    def clean_up(self) -> None:
        """Finish what a killed run was about to rename or to remove."""
        clean_up(self.path)
        for result in self.path.glob("checkpoints/*/result.json"):
            remove_checkpoints(result.parent)

    @property
    def finished(self) -> bool:
        """Whether the last thing that a run writes is there."""
        return (self.path / "report.html").exists() and self.record.exists()


def saved_config(config: Config) -> Config | None:
    """Return the configuration that the run folder was begun with, None where it was not.

    Raises:
        UserError: it cannot be read.
    """
    assert config.run_dir is not None
    path = Path(config.run_dir) / "config.yaml"
    if not path.exists():
        return None
    try:
        return load_config(path)
    except UserError as error:
        raise UserError(
            f"run folder {path.parent} is torn or of another version: {error}; give another --run_dir"
        ) from error


def find_run_folder(config: Config) -> RunFolder:
    """Return the folder of a run, new or made with the same configuration; nothing is written yet.

    Raises:
        UserError: it belongs to another configuration, or cannot be written.
    """
    assert config.run_dir is not None
    folder = RunFolder(Path(config.run_dir))
    existing = next(path for path in (folder.path, *folder.path.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problem = "no write permission for" if existing.is_dir() else "there is a file in its place:"
        raise UserError(f"run folder {folder.path} cannot be made: {problem} {existing}; give another --run_dir")
    saved = saved_config(config)
    if saved is not None:
        different = differing_keys(saved, config)
        if different:
            raise UserError(
                f"run folder {folder.path} belongs to another configuration (different: {', '.join(different)}); "
                "give another --run_dir, or the configuration it was made with"
            )
    elif folder.path.exists() and not all(is_leftover(path) for path in folder.path.iterdir()):
        raise UserError(f"run folder {folder.path} holds other files and no config.yaml; give another --run_dir")
    return folder


def create_run_folder(config: Config, folder: RunFolder, inputs: Mapping[str, str]) -> None:
    """Make the folder and write its configuration, from which moment on it belongs to this run.

    Args:
        inputs: the checksum of every part of the data and of the weights that the run starts from, by its name.

    Raises:
        UserError: it cannot be written, or was begun with other data or weights.
    """
    checksums = folder.path / "checkpoints" / "inputs.json"
    try:
        if checksums.exists():
            begun_with = json.loads(checksums.read_text())
            changed = [name for name in inputs if begun_with.get(name) != inputs[name]]
            if changed:
                raise UserError(
                    f"{', '.join(changed)}: no longer what run folder {folder.path} was begun with; "
                    "put the files back, or give another --run_dir"
                )
        if not (folder.path / "config.yaml").exists():
            save_config(config, folder.path / "config.yaml")
        if not checksums.exists():
            write_atomically(checksums, json.dumps(inputs, indent=1))
    except OSError as error:
        raise UserError(f"run folder {folder.path} cannot be made: {error}; give another --run_dir") from error


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Keep other processes out of a run folder while the block runs, and tidy first what a killed one left.

    A launcher that is killed may leave its run behind, alive; two runs in one folder would tear each other's files.

    Raises:
        UserError: another process works in it.
    """
    with open(folder.path / "config.yaml") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"run folder {folder.path} is in use by another process; wait until it ends, or give another --run_dir"
            ) from error
        folder.clean_up()
        yield


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a checkpoint with its tokenizer so that it is whole or not there."""
    temporary = folder.with_name(folder.name + UNFINISHED)
    shutil.rmtree(temporary, ignore_errors=True)
    save_pretrained(model, tokenizer, temporary)
    replace_directory(temporary, folder)
