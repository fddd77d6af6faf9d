"""The peak memory of a program in a fresh process, and texts of made-up words for it to read."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
WORDS = [f"{first}{last}{middle}" for first in "bdfgklmnprst" for last in "aeiou" for middle in "nrstl"]
BUFFERS = 100e6
"""Bytes for chunks of a reader, a sample and batches of the tokenizer, whatever the number of rows."""
LIMIT = 2e9
PEAK = """
import re
from pathlib import Path

def peak():
    # Not getrusage, whose maximum a new process inherits from the one that started it.
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def draw_texts(generator: np.random.Generator, count: int) -> list[str]:
    """Return texts of 8 to 23 words."""
    lengths = generator.integers(8, 24, count)
    drawn = np.array(WORDS)[generator.integers(0, len(WORDS), lengths.sum())]
    ends = np.cumsum(lengths)
    return [" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


def last_line(program: str, *arguments: str) -> str:
    """Run a program, which may call ``peak()``, and return the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK + program, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]
