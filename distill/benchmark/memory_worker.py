"""A fresh process that reports the memory of one forward pass after another: the ``-m`` target of `memory`."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distill.benchmark.timing import OUT_OF_MEMORY, PointError, memory_errors


def main() -> None:
    """Read jobs as JSON from stdin and print one JSON answer per line, each from a process of its own."""
    import transformers.models.auto.modeling_auto  # noqa: F401  (imported once, inherited by every fork)

    for job in json.load(sys.stdin):
        print(json.dumps(_in_fork(job)), flush=True)


def _in_fork(job: dict[str, Any]) -> dict[str, Any]:
    """Answer one job in a forked process, whatever happens to that process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(2, 1)  # what libraries print must not be read as an answer
            os.write(writing, json.dumps(_answer(job)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if text:
        return json.loads(text)
    return {"reason": OUT_OF_MEMORY if status == -9 else f"the process ended with exit code {status}"}


def _answer(job: dict[str, Any]) -> dict[str, Any]:
    try:
        with memory_errors():
            return {"peak_mb": _peak_of_forward(job) / 1e6}
    except PointError as error:
        return {"reason": str(error)}
    except Exception as error:  # the parent writes any failure down as the reason of a null
        return {"reason": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"}


def _peak_of_forward(job: dict[str, Any]) -> int:
    """Bytes by which one forward pass raises the peak above the loaded model."""
    from transformers import AutoModelForSequenceClassification

    from distill.benchmark.model_copies import extend_positions, is_speed_only, make_inputs
    from distill.models.windowed_bert import reading_windows

    torch.set_num_threads(job["threads"])
    device = torch.device(job["device"])
    model = AutoModelForSequenceClassification.from_pretrained(
        job["folder"],
        dtype=getattr(torch, job["dtype"]),
        trust_remote_code=job["trust_remote_code"],
        local_files_only=True,
    )
    if job["in_windows"]:
        model = reading_windows(model)
    if is_speed_only([model], job["length"]):
        model = extend_positions(model, job["length"])
    model = model.to(device).eval()
    vocabulary_size = model.config.vocab_size
    inputs = make_inputs(model, job["batch_size"], job["length"], vocabulary_size=vocabulary_size, device=device)
    with torch.inference_mode():
        model(**inputs)
        peak = _start_cuda_peak(device) if device.type == "cuda" else start_resident_peak()
        model(**inputs)
        return max(0, peak())


def _start_cuda_peak(device: torch.device) -> Callable[[], int]:
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    idle = torch.cuda.memory_allocated(device)
    return lambda: torch.cuda.max_memory_allocated(device) - idle


def start_resident_peak() -> Callable[[], int]:
    """Return a function that gives the rise of the resident peak since now, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak that loading left behind
        idle = _status_bytes("VmRSS")
        return lambda: _status_bytes("VmHWM") - idle
    except OSError:
        import resource  # not on every system; there the peak so far cannot be forgotten, a lower bound is left

        unit = 1 if sys.platform == "darwin" else 1024
        idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - idle


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
