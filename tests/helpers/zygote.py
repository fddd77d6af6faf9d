"""Import what our scripts import, then be every command that is asked for: a fork costs what imports would not.

Started by ``helpers.warm``, which says on a socket what to run. A command gets argv, environment, folder and files of
its own; what it leaves in memory ends with its process. Nothing is computed before a fork, and there are no threads.
"""

import gc
import importlib
import json
import os
import runpy
import socket
import struct
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
IMPORTED = (
    # Not onnxruntime, which starts a thread when it is imported.
    *("torch.utils.tensorboard", "torch.utils.cpp_extension", "torch.onnx", "onnx", "deepspeed"),
    *(
        "distill.evaluation.comparison",
        "distill.evaluation.evaluate_metrics",
        "distill.training.accelerator",
        "distill.training.run_folder",
        "distill.reporting.report",
        "distill.benchmark.latency",
    ),
    *("pipelines.run.preflight", "pipelines.run.comparison", "pipelines.run.phases", "students"),
    *("transformers.models.bert.modeling_bert", "pandas"),
)
HEADER = struct.Struct("!I")


def serve(requests: socket.socket) -> dict[str, Any] | None:
    """Fork for every request until the other side is gone: None; return a request in the process that is to be it."""
    while True:
        header, descriptors, _, _ = socket.recv_fds(requests, HEADER.size, 4)
        if len(header) < HEADER.size:
            return None
        size, text = HEADER.unpack(header)[0], b""
        while len(text) < size:
            text += requests.recv(size - len(text))
        *streams, report = descriptors
        keeper = os.fork()
        if keeper == 0:
            requests.close()
            if keep(streams, report):
                return json.loads(text)
            os._exit(0)
        for descriptor in descriptors:
            os.close(descriptor)
        reap()


def reap() -> None:
    """Take leave of the keepers that have ended."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def keep(streams: list[int], report: int) -> bool:
    """Fork the process of the command and report its id and how it ended; return True in that process."""
    starting, started = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()  # it and what it starts are killed together
        os.write(started, b".")
        for descriptor in (starting, started, report):
            os.close(descriptor)
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        return True
    for descriptor in (0, 1, 2, *streams, started):
        os.close(descriptor)
    os.read(starting, 1)
    os.write(report, f"{child}\n".encode())
    status = os.waitpid(child, 0)[1]
    os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    return False


def be(request: dict[str, Any]) -> None:
    """Run a script as a fresh interpreter would; its end is that of this process."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = request["command"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    runpy.run_path(sys.argv[0], run_name="__main__")


def main() -> None:
    """Import, serve, and in a fork become the command."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    sys.path[0] = str(ROOT)
    from distill.utils.cli import quiet_libraries

    quiet_libraries()
    for name in IMPORTED:
        importlib.import_module(name)
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("bert")  # a table of names for all models, which saving the first one makes
    assert threading.active_count() == 1, "a fork with threads may hang"
    gc.collect()
    gc.freeze()  # or a fork's first collection copies every page of the imported modules
    request = serve(requests)
    if request is not None:
        be(request)


if __name__ == "__main__":
    main()
