"""Run our scripts in forks of a process that has everything imported; seconds of CPU time less for each.

One such process for a worker of pytest, started when it is first needed. What a test is about the start of a process
(launchers, an interpreter without this repository, the time of ``--help``) takes a fresh one.
"""

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from helpers.zygote import HEADER

READ_AT_IMPORT = (
    *("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HOME"),
    *("HF_MODULES_CACHE", "PYTHONPATH", "PYTHONHASHSEED", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"),
)
"""Variables that come too late for a process that has imported."""


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which two runs give the same bits: one thread, no GPU."""
    return os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | more


@functools.cache
def _zygote() -> tuple[socket.socket, Mapping[str, str]]:
    """Start the process that is forked; return the socket on which it takes requests, and its environment."""
    ours, its = socket.socketpair()
    program, variables = Path(__file__).with_name("zygote.py"), environment()
    # A session of its own: Ctrl-C ends pytest, and the socket's end then ends this one.
    process = subprocess.Popen(
        [sys.executable, str(program), str(its.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=variables,
        pass_fds=[its.fileno()],
        start_new_session=True,
    )
    its.close()

    def stop() -> None:
        ours.close()
        process.wait()

    atexit.register(stop)
    return ours, variables


class Warm:
    """A script in a fork, used as ``subprocess.Popen`` is; leader of a session of its own."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | str = "."):
        """Start it.

        Args:
            command: the script's path and its arguments.
            env: by default :func:`environment`.
            cwd: the folder to run in.
        """
        requests, variables = _zygote()
        wanted = environment() if env is None else dict(env)
        late = [name for name in READ_AT_IMPORT if wanted.get(name) != variables.get(name)]
        assert not late, f"{late} are read when libraries are imported: take a fresh process"
        self.args, self.returncode = [sys.executable, *command], None
        self._streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115  (read when the process has ended)
        request = {"command": list(command), "environment": wanted, "folder": os.path.abspath(cwd)}
        text = json.dumps(request).encode()
        reading, writing = os.pipe()
        self._report = os.fdopen(reading, "rb", buffering=0)
        with open(os.devnull, "rb") as nothing:
            streams = [nothing.fileno(), *(stream.fileno() for stream in self._streams)]
            socket.send_fds(requests, [HEADER.pack(len(text))], [*streams, writing])
            requests.sendall(text)
        os.close(writing)
        self.pid = int(self._line(None))

    def _line(self, timeout: float | None) -> bytes:
        """Return the next line of the report; empty if there is none in time."""
        if not select.select([self._report], [], [], timeout)[0]:
            return b""
        line = self._report.readline()
        assert line, "the process that is forked has died"
        return line

    def poll(self) -> int | None:
        """Return the exit code, minus the number of the signal that ended it, or None while it runs."""
        if self.returncode is None and (line := self._line(0)):
            self.returncode = int(line)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end and return stdout and stderr.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            line = self._line(timeout)
            if not line:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = int(line)
        for stream in self._streams:
            stream.seek(0)
        output, errors = (stream.read().decode() for stream in self._streams)
        return output, errors


class Ranks:
    """A script in several forks that are the ranks of one run, as ``torchrun --standalone`` starts it.

    Once one of them fails the others are ended, as ``torchrun`` does. A test of the launcher itself takes a real one.
    """

    def __init__(self, count: int, command: Sequence[str], env: Mapping[str, str], cwd: Path | str = "."):
        """Start ``count`` ranks; the other arguments are those of :class:`Warm`."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": f"{count}", "LOCAL_WORLD_SIZE": f"{count}", "MASTER_ADDR": "127.0.0.1"}
        shared["MASTER_PORT"] = f"{port}"
        self.ranks = [
            Warm(command, dict(env) | shared | {"RANK": f"{rank}", "LOCAL_RANK": f"{rank}"}, cwd)
            for rank in range(count)
        ]
        self.args = self.ranks[0].args

    def poll(self) -> int | None:
        """Return None while a rank runs, then the first failure's exit code, or 0."""
        codes = [rank.poll() for rank in self.ranks]
        if any(codes):
            for rank in self.ranks:
                if rank.returncode is None:
                    with suppress(ProcessLookupError):  # it may have ended since it was looked at
                        os.kill(rank.pid, signal.SIGTERM)
        return None if None in codes else self.returncode

    @property
    def returncode(self) -> int | None:
        """The first failure's exit code, 0 if all went well, None while a rank runs."""
        codes = [rank.returncode for rank in self.ranks]
        return None if None in codes else next(filter(None, codes), 0)

    def communicate(self, timeout: float = 250) -> tuple[str, str]:
        """Wait for the end and return what all ranks wrote to stdout and stderr.

        Raises:
            subprocess.TimeoutExpired: one still runs.
        """
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.01)
        output, errors = zip(*(rank.communicate() for rank in self.ranks), strict=True)
        return "".join(output), "".join(errors)


def run(command: Sequence[str], timeout: float = 250, **how: object) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, whatever the exit code, as ``subprocess.run`` does; see :class:`Warm`."""
    process = Warm(command, **how)
    try:
        output, errors = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
