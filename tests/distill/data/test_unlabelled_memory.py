"""A million texts without labels in less than two gigabytes: looked at, tokenised onto the disk and read in batches.

DISTILL_ROWS=1000000 python -m pytest -s tests/distill/data/test_unlabelled_memory.py      (the figures of a million)
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers.peak_memory import BUFFERS, LIMIT, WORDS, draw_texts, last_line

ROWS = int(os.environ.get("DISTILL_ROWS", "200000"))
BYTES_PER_ROW = 100
"""Keys, lengths and orders of rows, eight bytes each, and the pages of the tokens that were read."""
BATCHES = 2000
PROGRAM = """
import json, sys
from time import perf_counter
import numpy as np
from distill.data.batching import collate, length_grouped_batches
from distill.data.splits import Examples, Splits
from distill.data.token_store import open_tokens, write_tokens
from distill.data.tokenization import tokenize, train_tokenizer
from distill.data.unlabelled import find_unlabelled
from distill.tasks import TASKS
from teachers.output_cache import teacher_fingerprint

place, folder, words, batches = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]), int(sys.argv[4])
tokenizer = train_tokenizer(words, 2000)
few = Examples(np.arange(20), [("a text of its own",)] * 20, np.zeros(20, np.int64))
own = tokenize(few, tokenizer, 128)
before, times = peak(), [perf_counter()]
found = find_unlabelled(TASKS["sst2"], place, Splits(few, few, {"validation": few}))
times.append(perf_counter())
write_tokens(folder, own, (tokenize(part, tokenizer, 128) for part in found.chunks()), len(tokenizer))
times.append(perf_counter())
examples = open_tokens(folder)
read = 0
for indices in length_grouped_batches(examples.lengths, 32, seed=0, epoch=0)[:batches]:
    inputs, _ = collate(examples, indices)
    read += len(inputs["input_ids"])
times.append(perf_counter())
class Teacher:
    def state_dict(self):
        return {}
teacher_fingerprint(Teacher(), examples, None)
size = sum(path.stat().st_size for path in folder.iterdir())
seconds = np.diff(times).tolist()
print(json.dumps([before, peak(), seconds, len(examples), len(examples.token_ids), size, read, found.dropped]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from Linux's /proc")
def test_peak_memory_of_texts_without_labels(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    with open(tmp_path / "texts.txt", "w") as file:
        for start in range(0, ROWS, 10_000):
            file.write("".join(f"{text}\n" for text in draw_texts(generator, min(10_000, ROWS - start))))
    (tmp_path / "tokens").mkdir()
    arguments = [str(tmp_path / "texts.txt"), str(tmp_path / "tokens"), json.dumps(WORDS), str(BATCHES)]
    before, peak, seconds, rows, tokens, size, read, dropped = json.loads(last_line(PROGRAM, *arguments))
    looked, tokenised, batches = seconds
    print(
        f"\n{ROWS:,} texts, {tokens:,} tokens, {size / 1e6:.0f} MB on disk; libraries {before / 1e6:.0f} MB, peak "
        f"{peak / 1e6:.0f} MB; looked at in {looked:.1f} s, tokenised in {tokenised:.1f} s, {read:,} texts read in "
        f"batches in {batches:.1f} s"
    )
    assert rows == ROWS + 20 - dropped.get("duplicates", 0)
    assert read == BATCHES * 32
    assert peak - before < BUFFERS + BYTES_PER_ROW * ROWS
    assert peak < LIMIT
