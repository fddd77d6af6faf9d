"""What a run does to its files, seen and cut short from inside its process."""

import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PHASES = ("start", "teacher", "cache", "layers", "logits", "baseline", "comparison", "report")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def phase_of(folder: Path) -> str:
    """Return the phase in which a run stands, judged by what is in its folder."""
    checkpoints = folder / "checkpoints"
    if not (folder / "config.yaml").exists():
        return "start"
    if not (checkpoints / "teacher" / "result.json").exists():
        return "teacher"
    for phase in ("layers", "logits", "baseline"):
        if not (checkpoints / phase / "result.json").exists():
            cached = phase != "layers" or any(checkpoints.glob("teacher_outputs/*/seconds.json"))
            return phase if cached else "cache"
    if not (folder / "predictions.parquet").exists():
        return "comparison"
    return "finished" if (folder / "report.html").exists() else "report"


@dataclass(frozen=True)
class Kill:
    """When and how a run ends; ``event`` counts the changes that Python makes to the files of the run folder."""

    kind: str
    """``write``, ``before rename``, ``after rename``, ``remove`` or ``time``."""
    event: int
    file: str
    limit: int = 0
    """For ``write``: bytes after which the kernel cuts the file off."""
    seconds: float = 0.0
    """For ``time``: from the event to the kill."""


class FileEvents:
    """Counts a run's changes to its files through Python's audit hook, and calls ``act`` before each of them."""

    def __init__(self, folder: Path, act: Callable[[int, str, str], None]) -> None:
        self.folder, self.act, self.count = str(folder), act, 0
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take note of what changes the run folder; TensorBoard's thread writes when it likes and is left out."""
        if event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir"):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & WRITING):
            return
        path = os.fspath(arguments[0]) if isinstance(arguments[0], str | os.PathLike) else ""
        if event in ("os.remove", "os.rmdir") and arguments[1] != -1:
            path = os.path.join(os.readlink(f"/proc/self/fd/{arguments[1]}"), path)
        if path.startswith(self.folder) and "/tensorboard" not in path:
            self.act(self.count, event, os.fspath(arguments[1]) if event == "os.rename" else path)
            self.count += 1


def announce_torch_save() -> None:
    """Let ``torch.save`` show up as opening its file: it writes in C++, straight after another library's files."""
    import torch

    save = torch.save

    def announced(content: Any, file: Any, *arguments: Any, **keywords: Any) -> None:
        if isinstance(file, str | os.PathLike):
            sys.audit("open", file, "wb", WRITING)
        save(content, file, *arguments, **keywords)

    torch.save = announced


def kill_at(kill: Kill, ready: int) -> Callable[[int, str, str], None]:
    """Return what ends this process at the chosen event, or tells the parent through ``ready`` that it has come."""
    reached: list[int] = []
    rename = os.replace

    def rename_and_die(*arguments: Any, **keywords: Any) -> None:
        rename(*arguments, **keywords)
        if reached:
            os.kill(os.getpid(), signal.SIGKILL)

    def act(count: int, event: str, path: str) -> None:
        if count != kill.event:
            return
        reached.append(count)
        if kill.kind == "time":
            os.write(ready, b".")
        elif kill.kind == "write":
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
            resource.setrlimit(resource.RLIMIT_FSIZE, (kill.limit, resource.RLIM_INFINITY))
        elif kill.kind != "after rename":
            os.kill(os.getpid(), signal.SIGKILL)

    if kill.kind == "after rename":
        os.replace = os.rename = rename_and_die
    return act


@dataclass(frozen=True)
class Event:
    """One change of the undisturbed run, the phase and the second in which it happened, and what it led to."""

    name: str
    file: str
    phase: str
    seconds: float
    written: tuple[tuple[str, int], ...]
    """Files, with their sizes, that were written before the next event: by Python or by a native library."""


class Tracer:
    """Writes the events of an undisturbed run down, as one JSON line each."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.folder, self.log = folder, open(log, "w")  # noqa: SIM115
        self.started, self.last, self.sizes = time.monotonic(), {}, dict[str, tuple[int, int]]()

    def act(self, count: int, event: str, path: str) -> None:
        """Note what the event before led to."""
        self.close_event()
        file = short(os.path.relpath(path, self.folder))
        seconds = time.monotonic() - self.started
        self.last = {"name": event, "file": file, "phase": phase_of(self.folder), "seconds": seconds}

    def close_event(self) -> None:
        """Compare the folder with what it was at the event before."""
        found = {}
        for path in self.folder.rglob("*"):
            if path.is_file() and "tensorboard" not in path.parts:
                state = path.stat()
                found[str(path.relative_to(self.folder))] = (state.st_ino, state.st_size)
        known = set(self.sizes.values())  # a renamed file is not a written one
        written = [(short(name), state[1]) for name, state in found.items() if state not in known and state[1] > 0]
        if self.last:
            self.log.write(json.dumps(self.last | {"written": written}) + "\n")
            self.log.flush()
        self.sizes = found


def short(path: str) -> str:
    """Leave the process number out of a temporary name."""
    return re.sub(r"\.\d+(?=\.incomplete)", "", path)
