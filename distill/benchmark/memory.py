"""Peak memory of a forward pass, every point in a fresh process.

A process that already ran something keeps memory that the next run takes without asking, so its peak says little. One
helper process imports the libraries once and forks a new process per point; that one loads the checkpoint, runs the
batch once so that weights and kernels are in memory, notes what it holds, runs the batch again, and reports how far
the peak rose above what it held: what is alive at the same time during a forward pass, beside the weights.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from distill.benchmark.timing import is_out_of_memory

ROOT = Path(__file__).resolve().parents[2]
SECONDS_PER_POINT = 120.0
STARTUP_SECONDS = 180.0
OUT_OF_MEMORY = "out of memory"


def measure_memory(
    folders: Mapping[str, Path | str],
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    points: Sequence[tuple[int, int]],
    remote_code: Collection[str] = (),
    in_windows: Collection[tuple[str, int]] = (),
) -> list[dict[str, Any]]:
    """Measure how much memory a forward pass needs beside the weights, in MB (10⁶ bytes).

    Args:
        folders: checkpoint of each model by role, such as ``teacher`` and ``student``.
        device: where to measure; resident memory of the process on CPU, allocated memory on CUDA.
        dtype: of all weights and activations.
        points: pairs of batch size and length in tokens; beyond a position table it is tiled.
        remote_code: roles whose own code, in the checkpoint folder, may run; only students that we saved.
        in_windows: roles and lengths at which a BERT reads windows, instead of a tiled table.

    Returns:
        The entries ``memory[]`` of the record: ``device``, ``dtype``, ``batch_size``, ``length`` and ``<role>_mb``,
        which is null with a ``reason`` where a point could not be measured.
    """
    jobs = [
        {
            "folder": str(Path(folder).resolve()),
            "role": role,
            "device": str(device),
            "dtype": str(dtype).removeprefix("torch."),
            "batch_size": batch_size,
            "length": length,
            "threads": torch.get_num_threads(),
            "trust_remote_code": role in remote_code,
            "in_windows": (role, length) in in_windows,
        }
        for batch_size, length in points
        for role, folder in folders.items()
    ]
    answers = _run_helper(jobs, STARTUP_SECONDS + SECONDS_PER_POINT * len(jobs))
    entries: list[dict[str, Any]] = []
    for start in range(0, len(jobs), len(folders)):
        entry = {key: jobs[start][key] for key in ("dtype", "batch_size", "length")}
        entry = {"device": torch.device(device).type, **entry}
        reasons = []
        for job, answer in list(zip(jobs, answers, strict=True))[start : start + len(folders)]:
            entry[f"{job['role']}_mb"] = answer.get("peak_mb")
            reasons += [f"{job['role']}: {answer['reason']}"] if "reason" in answer else []
        entries.append(entry | ({"reason": "; ".join(reasons)} if reasons else {}))
    return entries


def _run_helper(jobs: list[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """Answer every job through the helper process; jobs that it did not answer get a reason."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        # Freed tensors go back to the system at once, so that the peak is what was alive, not what was kept.
        "MALLOC_MMAP_THRESHOLD_": "65536",
    }
    # -P: this file's folder and the working directory must not shadow libraries (we have a statistics.py).
    command = [sys.executable, "-P", "-m", "distill.benchmark.memory"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(jobs),
            capture_output=True,
            text=True,
            env=environment,
            timeout=seconds,
            check=False,
        )
        output, reason = done.stdout, (done.stderr.strip().splitlines() or ["no answer"])[-1]
    except subprocess.TimeoutExpired as error:
        output = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
        reason = "no answer in time"
    answers = [json.loads(line) for line in output.splitlines() if line.endswith("}")]
    return answers + [{"reason": reason}] * (len(jobs) - len(answers))


# ---------------------------------------------------------------- inside the helper


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
        return {"peak_mb": _peak_of_forward(job) / 1e6}
    except Exception as error:  # the parent writes any failure down as the reason of a null
        if is_out_of_memory(error):
            return {"reason": OUT_OF_MEMORY}
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
