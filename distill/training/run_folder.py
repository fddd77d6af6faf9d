"""The run folder: fixed names, what is finished, and a refusal to mix two configurations."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.config.found import with_found
from distill.config.parsing import config_text, load_config, save_config
from distill.config.resume import moved_inputs, refused_keys
from distill.config.schema import Config
from distill.models.saving import save_pretrained
from distill.training.checkpoints import remove_checkpoints
from distill.training.finished import is_finished
from distill.utils.errors import UserError
from distill.utils.files import (
    UNFINISHED,
    checksums,
    clean_up,
    find_damage,
    is_leftover,
    read_object,
    remove,
    replace_directory,
    write_atomically,
)
from distill.utils.record_json import JsonObject, from_json

SETTINGS_OF = "configuration and tokenizer of "
"""Begins the name of what decides a checkpoint's answers beside its weights; earlier versions did not note it."""


@dataclass(frozen=True)
class SavedResult(JsonObject):
    """What a resumed run reads of the result of a finished phase."""

    name: str
    files: Mapping[str, str] | None = None
    """SHA-256 sums of the files of its model, by their path there; None in results of earlier versions."""
    history: tuple[Mapping[str, float], ...] = ()
    held_out: tuple[Mapping[str, float], ...] = ()


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

    def model(self, name: str) -> Path:
        """Return where a phase leaves its model."""
        return self.path / name if name in ("teacher", "baseline") else self.phase(name) / "student"

    def result(self, name: str) -> dict[str, Any] | None:
        """Return what a finished phase wrote, or None if it is not finished.

        Raises:
            UserError: it is torn.
        """
        path = self.phase(name) / "result.json"
        return read_result(path, f"remove {path.parent} to run this phase again") if path.exists() else None

    def finish(self, name: str, result: dict[str, Any]) -> None:
        """Mark a phase as finished, with the checksums of its model, and drop what only resuming it needed."""
        result = result | {"files": checksums(self.model(name))}
        write_atomically(self.phase(name) / "result.json", json.dumps(result, indent=1))
        remove_checkpoints(self.phase(name))

    def finished_phases(self, names: Sequence[str]) -> list[str]:
        """Return the phases up to the first that is not finished: what comes after it was built on another one."""
        return list(takewhile(lambda name: self.result(name) is not None, names))

    def forget(self, names: Sequence[str]) -> None:
        """Remove what phases have left that were built on one that is run again, and the student that came of them."""
        for name in names:
            remove(self.phase(name))
        remove(self.student)

    def checked_model(self, name: str, files: str = "*") -> Path:
        """Return the folder of a finished phase's model, after a look whether it still is what the phase left.

        Args:
            name: of the phase.
            files: pattern of the files that are going to be read.

        Raises:
            UserError: one of them is missing or was changed.
        """
        damage = find_damage(self.model(name), self._model_files(name), files)
        if damage:
            raise UserError(
                f"{damage} since phase {name} ended; put it back, or remove {self.phase(name)} to run this phase again"
            )
        return self.model(name)

    def _model_files(self, name: str) -> Mapping[str, str | None]:
        """Return the checksums of the files of a finished phase's model; of an earlier version the needed names."""
        files = (self.result(name) or {}).get("files")
        return dict.fromkeys(("config.json", "model.safetensors")) if files is None else files

    def check_student(self, stages: Sequence[str]) -> None:
        """Look whether the student, if it is there, is what the last stage left.

        Raises:
            UserError: one of its files is missing or was changed.
        """
        if not self.student.exists() or not stages or self.result(stages[-1]) is None:
            return
        damage = find_damage(self.student, self._model_files(stages[-1]))
        if damage:
            raise UserError(
                f"{damage} since the run left it; put it back, or move {self.student} away to have it written again"
            )

    def clean_up(self) -> None:
        """Finish what a killed run was about to rename or to remove."""
        clean_up(self.path)
        for result in self.path.glob("checkpoints/*/result.json"):
            remove_checkpoints(result.parent)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return is_finished(self.path)


def read_result(path: Path, way_out: str) -> dict[str, Any]:
    """Read what a finished phase wrote.

    Raises:
        UserError: it is torn, or holds something else; the message ends with ``way_out``.
    """
    result = read_object(path, way_out)
    try:
        from_json(SavedResult, result, str(path))
    except UserError as error:
        raise UserError(f"{error}; {way_out}") from error
    return result


def saved_config(config: Config) -> Config | None:
    """Return the configuration that the run folder was begun with, with what was found since; None where it was not.

    Raises:
        UserError: it cannot be read.
    """
    assert config.run_dir is not None
    path = Path(config.run_dir) / "config.yaml"
    if not path.exists():
        return None
    try:
        saved = load_config(path)
    except UserError as error:
        raise UserError(
            f"run folder {path.parent} is torn or of another version: {error}; give another --run_dir"
        ) from error
    return with_found(saved, path.parent)


def find_run_folder(config: Config) -> RunFolder:
    """Return the folder of a run, new or made with the same configuration; nothing is written yet.

    Raises:
        UserError: it belongs to another configuration, holds links, or cannot be written.
    """
    assert config.run_dir is not None
    folder = RunFolder(Path(config.run_dir))
    refuse_links(folder)
    existing = next(path for path in (folder.path, *folder.path.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problem = "no write permission for" if existing.is_dir() else "there is a file in its place:"
        raise UserError(f"run folder {folder.path} cannot be made: {problem} {existing}; give another --run_dir")
    saved = saved_config(config)
    if saved is not None:
        begun = [name for name in ("baseline",) if folder.phase(name).exists()]
        different = refused_keys(saved, config, [*begun, *(("comparison",) if folder.finished else ())])
        if different:
            raise UserError(
                f"run folder {folder.path} belongs to another configuration (different: {', '.join(different)}); "
                "give another --run_dir, or the configuration it was made with"
            )
    elif folder.path.exists() and not all(is_leftover(path) for path in folder.path.iterdir()):
        raise UserError(f"run folder {folder.path} holds other files and no config.yaml; give another --run_dir")
    return folder


def refuse_links(folder: RunFolder) -> None:
    """Refuse a run folder that holds links: what is written through one lands somewhere else; UserError names it."""
    link = next((path for path in sorted(folder.path.rglob("*")) if path.is_symlink()), None)
    if link is not None:
        raise UserError(
            f"{link} is a link to {os.readlink(link)}; a run writes inside its own folder only: "
            "put a copy in its place, or give another --run_dir"
        )


def create_run_folder(config: Config, folder: RunFolder, inputs: Mapping[str, str]) -> None:
    """Make the folder and write its configuration, from which moment on it belongs to this run.

    Args:
        inputs: the checksum of every part of the data and of the weights that the run starts from, by its name.

    Raises:
        UserError: it cannot be written, or was begun with other data or weights.
    """
    begun_with = folder.path / "checkpoints" / "inputs.json"
    saved = saved_config(config)
    changed = [] if saved is None else moved_inputs(saved, config)
    if begun_with.exists():
        known = read_object(begun_with, "remove it if data and weights are what they were when the run began")
        noted = [name for name in known | dict(inputs) if name in known or not name.startswith(SETTINGS_OF)]
        changed = sorted(name for name in noted if known.get(name) != inputs.get(name))
    if changed:
        raise UserError(
            f"{', '.join(changed)}: no longer what run folder {folder.path} was begun with; "
            "put the files back, or give another --run_dir"
        )
    try:
        if saved is None:
            save_config(config, folder.path / "config.yaml")
        if not begun_with.exists():
            write_atomically(begun_with, json.dumps(inputs, indent=1))
    except OSError as error:
        raise UserError(f"run folder {folder.path} cannot be made: {error}; give another --run_dir") from error


def update_config(config: Config, folder: RunFolder) -> None:
    """Write down what a run has found, or its continuation changed, of its configuration."""
    path = folder.path / "config.yaml"
    # The text first: of a run that has just begun it is the same, and need not be parsed.
    if path.read_text(encoding="utf-8") != config_text(config) and load_config(path) != config:
        save_config(config, path)


@contextmanager
def locked(folder: RunFolder) -> Iterator[None]:
    """Keep other processes out of a run folder while the block runs, and tidy first what a killed one left.

    A launcher that is killed may leave its run behind, alive; two runs in one folder would tear each other's files.

    Raises:
        UserError: another process works in it, or nothing there can be locked.
    """
    # A file that is never replaced; open for writing, without which NFS gives no lock.
    with open(folder.path / "checkpoints" / "inputs.json", "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"run folder {folder.path} is in use by another process; wait until it ends, or give another --run_dir"
            ) from error
        except OSError as error:
            raise UserError(
                f"run folder {folder.path}: its file system gives no locks ({error.strerror}); give another --run_dir"
            ) from error
        folder.clean_up()
        yield


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, *, with_code: bool = False
) -> None:
    """Write a checkpoint with its tokenizer, and code of its own if that is trusted; it is whole or not there."""
    temporary = folder.with_name(folder.name + UNFINISHED)
    shutil.rmtree(temporary, ignore_errors=True)
    save_pretrained(model, tokenizer, temporary, with_code=with_code)
    replace_directory(temporary, folder)
