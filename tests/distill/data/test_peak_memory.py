"""Peak memory of reading, checking and tokenising, in a fresh process: it grows with the rows, slowly.

DISTILL_ROWS=1000000 python -m pytest -s tests/distill/data/test_peak_memory.py      (the figures of a million rows)
"""

import json
import os
from pathlib import Path

import numpy as np
import pandas
import pytest
from helpers.peak_memory import BUFFERS, LIMIT, WORDS, draw_texts, last_line

ROWS = int(os.environ.get("DISTILL_ROWS", "100000"))
BYTES_PER_ROW = 1000
"""Above the libraries: the texts as Python strings and in Arrow, 18 tokens of 5 bytes, and labels."""
PROGRAM = """
import json, sys
from distill.data.tokenization import tokenize
from distill.data.splits import load_splits
from distill.tasks import TASKS
from distill.data.tokenization import train_tokenizer

folder, words = sys.argv[1], json.loads(sys.argv[2])
tokenizer = train_tokenizer(words, 2000)
before = peak()
splits = load_splits(TASKS["sst2"], source=folder, seed=0, max_train_examples=None, held_out_fraction=0.05)
read = peak()
tokens = [tokenize(part, tokenizer, 128) for part in (splits.train, splits.held_out, *splits.validation.values())]
print(json.dumps([before, read, peak(), sum(map(len, tokens))]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("extension", ["csv", "jsonl", "parquet"])
def test_peak_memory_of_reading_and_tokenising(extension: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    texts = draw_texts(generator, ROWS)
    frame = pandas.DataFrame({"sentence": texts, "label": generator.integers(0, 2, ROWS)})
    (tmp_path / "sst2").mkdir()
    for split, rows in (("train", frame), ("validation", frame.head(100))):
        path = tmp_path / "sst2" / f"{split}.{extension}"
        if extension == "csv":
            rows.to_csv(path, index=False)
        elif extension == "jsonl":
            rows.to_json(path, orient="records", lines=True)
        else:
            rows.to_parquet(path)
    before, read, peak, examples = json.loads(last_line(PROGRAM, str(tmp_path), json.dumps(WORDS)))
    figures = f"libraries {before / 1e6:.0f} MB, read {read / 1e6:.0f} MB, tokenised {peak / 1e6:.0f} MB"
    print(f"\n{ROWS:,} rows of {extension}: {figures}")
    assert examples == ROWS + 100
    assert peak - before < BUFFERS + BYTES_PER_ROW * ROWS
    assert peak < LIMIT
