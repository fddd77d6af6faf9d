"""Kill a run at random moments, start it again, and compare its end bit by bit with a run that nobody killed.

python tests/chaos.py --kills 50 --seed 0 --output runs/chaos.json

Every second kill lies inside a file operation of the undisturbed run, the others are uniform in time; both are drawn
phase by phase, so that every phase is hit. A write is torn by lowering RLIMIT_FSIZE to fewer bytes than the file will
have: the kernel ends the process in the middle of the write, be it Python's own or that of a library in C++ or Rust.
"""

import argparse
import gc
import importlib
import json
import os
import random
import resource
import runpy
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from helpers.file_events import PHASES, Event, FileEvents, Kill, Tracer, announce_torch_save, kill_at, phase_of, short
from helpers.same_end import differences
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]

STAGES = [
    {"name": "layers", "epochs": 1, "learning_rate": 1e-3, "losses": {"attention_output": 1.0, "hidden_states": 1.0}},
    {
        "name": "logits",
        "epochs": 3,
        "learning_rate": 1e-3,
        "losses": {"logits": 0.9, "labels": 0.1},
        "dropout": True,
        "keep_best_epoch": True,
        "patience": 1,
    },
]
SMALLER = {
    "data.max_length": 32,
    "data.max_train_examples": 300,
    "teacher.scratch.num_layers": 2,
    "teacher.scratch.hidden_size": 32,
    "teacher.scratch.num_heads": 2,
    "teacher.scratch.intermediate_size": 64,
    "teacher.scratch.vocabulary_size": 400,
    "teacher.epochs": 2,
    "teacher.batch_size": 32,
    "teacher.margin_over_majority": -1,  # how good the teacher is does not matter here
    "student.num_layers": 1,
    "student.features": "redrawn",
    "student.redraw_interval": 3,
    "student.num_features": 16,
    "stages": STAGES,
    "baseline.epochs": 2,
    "training.checkpoint_every": 3,
    "training.log_every": 2,
    "training.mixed_precision": "no",
    "comparison.batch_sizes": [2],
    "comparison.lengths": [16],
    "comparison.seconds_per_point": 0.05,
    "comparison.resamples": 200,
    "comparison.memory": False,
}
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}
"""One thread adds in one order; numpy and torch read this when they are imported."""
IMPORTED = (
    *("torch.utils.tensorboard", "deepspeed", "distill.training.accelerator", "distill.training.run_folder"),
    *("pipelines.run.comparison", "pipelines.run.stages", "students"),
)
"""What a run imports: once, for all forks."""
HANGS = 900.0
"""Seconds after which a run that has not ended is taken to hang."""
REMOVALS = ("os.remove", "os.rmdir")


# ---------------------------------------------------------------- runs


def command(folder: Path) -> list[str]:
    """Return the command line of the run."""
    options = {**SMALLER, "data.dir": str(folder.parent / "data"), "run_dir": str(folder)}
    words = [word for key, value in options.items() for word in (f"--{key}", as_word(value))]
    return [str(ROOT / "pipelines" / "distill.py"), "--config", str(ROOT / "configs" / "demo.yaml"), *words]


def as_word(value: Any) -> str:
    """Write a value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def run_forked(folder: Path, kill: Kill | None = None, trace: Path | None = None) -> tuple[int, str]:
    """Run the pipeline in a fork of this process, which has everything imported; return its status and output.

    The status is the exit code, or minus the number of the signal that ended it.
    """
    assert threading.active_count() == 1, "a fork with threads may hang"
    reading, writing = os.pipe()
    waiting, ready = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        run_pipeline(folder, kill, trace, ready)
    os.close(writing)
    os.close(ready)
    with os.fdopen(reading, "rb") as output, os.fdopen(waiting, "rb") as moment:
        text = b"".join(read_and_kill(output.fileno(), moment.fileno(), child, kill))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text.decode(errors="replace")


def read_and_kill(output: int, moment: int, child: int, kill: Kill | None) -> Iterator[bytes]:
    """Yield what the child prints until it ends; kill it some time after it says that the event has come."""
    ends, watched = time.monotonic() + HANGS, [output, moment]
    while True:
        found, _, _ = select.select(watched, [], [], max(0.0, ends - time.monotonic()))
        if time.monotonic() >= ends:
            os.kill(child, signal.SIGKILL)
            ends = time.monotonic() + HANGS
        if moment in found:
            watched.remove(moment)
            if os.read(moment, 1) and kill is not None:
                ends = time.monotonic() + kill.seconds
        if output in found:
            chunk = os.read(output, 65536)
            if not chunk:
                return
            yield chunk


def run_pipeline(folder: Path, kill: Kill | None, trace: Path | None, ready: int) -> NoReturn:
    """Be ``python pipelines/distill.py``, and never come back."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = command(folder)
    announce_torch_save()
    tracer = Tracer(folder, trace) if trace is not None else None
    if tracer is not None:
        FileEvents(folder, tracer.act)
    elif kill is not None and kill.event < 0:
        os.write(ready, b".")
    elif kill is not None:
        FileEvents(folder, kill_at(kill, ready))
    code: Any = 1
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    if tracer is not None:
        tracer.close_event()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 0)


# ---------------------------------------------------------------- the moments


def draw_kills(events: list[Event], count: int, seed: int) -> list[Kill]:
    """Draw kills inside file operations and kills uniform in time by turns, going round the phases."""
    generator = random.Random(seed)
    order = generator.sample(PHASES, len(PHASES))
    inside = [draw_operation(events, order[i % len(order)], generator) for i in range(count - count // 2)]
    in_time = [draw_time(events, order[(i + len(inside)) % len(order)], generator) for i in range(count // 2)]
    kills = [*inside, *in_time]
    generator.shuffle(kills)
    return kills


def draw_operation(events: list[Event], phase: str, generator: random.Random) -> Kill:
    """Draw one of a phase's writes, renames and removals; removals in a row count as one."""
    choices: list[Kill] = []
    for i, event in enumerate(events):
        if event.phase != phase:
            continue
        choices += [Kill("write", i, file, limit=generator.randrange(size)) for file, size in event.written]
        if event.name == "os.rename":
            choices.append(Kill(generator.choice(("before rename", "after rename")), i, event.file))
        elif event.name in REMOVALS and (i == 0 or events[i - 1].name not in REMOVALS):
            row = next((k for k in range(i, len(events)) if events[k].name not in REMOVALS), len(events))
            inside = generator.randrange(i, row)
            choices.append(Kill("remove", inside, events[inside].file))
    return generator.choice(choices)


def draw_time(events: list[Event], phase: str, generator: random.Random) -> Kill:
    """Draw a moment of a phase, as the seconds after the last event before it."""
    starts = [0.0, *(event.seconds for event in events)]
    phases = ["start", *(event.phase for event in events)]
    lasting = [(starts[i + 1] - starts[i]) * (phases[i] == phase) for i in range(len(starts) - 1)]
    (i,) = generator.choices(range(len(lasting)), weights=lasting)
    return Kill("time", i - 1, "", seconds=generator.random() * lasting[i])


def kill_and_compare(kill: Kill, folder: Path, undisturbed: Path) -> dict[str, Any]:
    """Run, kill, run again to the end, and say what happened."""
    status, output = run_forked(folder, kill)
    while status == 0:  # faster than the traced run, or no later write as large as the limit: a little earlier
        shutil.rmtree(folder)
        kill = replace(kill, seconds=kill.seconds / 2, limit=kill.limit // 2)
        status, output = run_forked(folder, kill)
    phase = phase_of(folder)
    torn = [path for path in folder.rglob("*") if kill.limit and path.is_file() and path.stat().st_size == kill.limit]
    file = short(str(torn[0].relative_to(folder))) if torn else kill.file
    ended = signal.Signals(-status).name if status < 0 else "exit"
    differ = [] if status < 0 else [f"the first run ended by itself, exit code {status}: {output[-1000:]}"]
    status, output = run_forked(folder)
    differ += differences(folder, undisturbed) if status == 0 else [f"exit code {status}: {output[-1000:]}"]
    return asdict(kill) | {"file": file, "phase": phase, "ended": ended, "equal": not differ, "differences": differ}


def chaos(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Run once undisturbed and ``count`` times with a kill; return what ``--output`` gets."""
    sys.path.insert(0, str(ROOT))
    for name in IMPORTED:
        importlib.import_module(name)
    from helpers.data_folders import few_sentences

    from distill.utils.environment import describe_environment

    few_sentences(folder / "data", 330, 200)
    gc.collect()
    gc.freeze()  # or every fork's collections go through, and copy, what the imports left
    undisturbed, trace = folder / "undisturbed", folder / "events.jsonl"
    status, output = run_forked(undisturbed, trace=trace)
    assert status == 0, output
    events = [Event(**json.loads(line)) for line in trace.read_text().splitlines()]
    runs = []
    tqdm.monitor_interval = 0  # no thread of its own, which a fork would not have
    tqdm.set_lock(threading.RLock())  # its own choice is shared by forks: one that is killed would block all others
    for kill in tqdm(draw_kills(events, count, seed), desc="kills", unit="run"):
        runs.append(kill_and_compare(kill, folder / "killed", undisturbed))
        shutil.rmtree(folder / "killed")
    return {
        "kills": count,
        "equal": sum(run["equal"] for run in runs),
        "seed": seed,
        "phases": {phase: sum(run["phase"] == phase for run in runs) for phase in PHASES},
        "kinds": dict(Counter(run["kind"] for run in runs)),
        "events": len(events),
        "seconds_undisturbed": events[-1].seconds,
        "environment": describe_environment(),
        "runs": runs,
    }


def main() -> int:
    """Print the histogram and the verdict; 0 if every run ended bit-equal and every phase was hit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="write the kills and their ends to this JSON file")
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ONE_THREAD)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        result = chaos(options.kills, options.seed, Path(folder))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
    for phase, hits in result["phases"].items():
        print(f"{phase:<11}{hits:>3} {'#' * hits}")
    for run in result["runs"]:
        if not run["equal"]:
            print(f"{run['kind']} in {run['phase']} at event {run['event']} {run['file']}: {run['differences']}")
    print(f"{result['equal']} of {result['kills']} runs ended bit-equal")
    missed = [phase for phase, hits in result["phases"].items() if not hits and options.kills >= 3 * len(PHASES)]
    if missed:
        print(f"no kill hit: {', '.join(missed)}")
    return int(result["equal"] < result["kills"] or bool(missed))


if __name__ == "__main__":
    sys.exit(main())
