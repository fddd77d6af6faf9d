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
from collections.abc import Mapping, Sequence
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


def run(command: Sequence[str], timeout: float = 250, **how: object) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, whatever the exit code, as ``subprocess.run`` does; see :class:`Warm`."""
    process = Warm(command, **how)
    try:
        output, errors = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)
