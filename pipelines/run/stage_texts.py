"""What the stages read: the train examples, altered copies of them, texts of other tasks and texts without labels."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from distill.data.augmentation import augment, join
from distill.data.batching import TokenizedExamples
from distill.data.token_store import bytes_on_disk, open_tokens, write_tokens
from distill.data.tokenization import PROBES, tokenize
from distill.data.unlabelled import UnlabelledTexts
from distill.evaluation.record_parts import UnlabelledEntry
from distill.training.accelerator import on_main_process
from distill.utils.files import read_object, remove, replace_directory, write_atomically
from distill.utils.progress import progress_bar
from pipelines.run.context import DistillationSetup, RunContext
from teachers.output_cache import make_workshop

STAGE_TOKENS = "stage_tokens"
"""The folder of the tokens, below ``checkpoints/`` or ``cache.dir``."""
COUNTED = "unlabelled.json"
"""What was counted while the texts without labels were tokenised, below ``checkpoints/``."""


@dataclass(frozen=True)
class TextCount:
    """How much the stages read in one pass."""

    rows: int
    tokens: float
    """Of all rows together; of texts without labels beyond the sample, an estimate."""


def count_stage_texts(context: RunContext, setup: DistillationSetup) -> TextCount:
    """Return how much there is to read, before anything but a sample of the texts without labels is tokenised."""
    times = 1 + (context.config.augmentation.copies or 0)
    parts = [setup.train] * times + ([] if setup.other is None else [setup.other])
    unlabelled = count_unlabelled(context, setup)
    rows = sum(map(len, parts)) + unlabelled.rows
    return TextCount(rows, sum(len(part.token_ids) for part in parts) + unlabelled.tokens)


def count_unlabelled(context: RunContext, setup: DistillationSetup) -> TextCount:
    """Return the same of the texts without labels alone."""
    if context.unlabelled is None or setup.unlabelled is None:
        return TextCount(0, 0)
    return TextCount(len(context.unlabelled), len(context.unlabelled) * float(setup.unlabelled.lengths.mean()))


def disk_of_stage_texts(context: RunContext, setup: DistillationSetup) -> int:
    """Return the bytes that the tokens will take, 0 where they stay in memory or are on disk already."""
    if context.unlabelled is None or (context.folder.path / "checkpoints" / COUNTED).exists():
        return 0
    texts = count_stage_texts(context, setup)
    return bytes_on_disk(texts.rows, texts.tokens, len(setup.tokenizer))


def read_stage_texts(context: RunContext, setup: DistillationSetup) -> TokenizedExamples:
    """Return what the stages read; with texts without labels, mapped from files that the main process writes once."""
    own = augmented_train(context, setup)
    texts = context.unlabelled
    if texts is None:
        return own
    reader = Reader(setup.tokenizer, context.config.data.max_length)
    return open_tokens(on_main_process(context.run.accelerator, lambda: keep_tokens(context, reader, own, texts)))


def augmented_train(context: RunContext, setup: DistillationSetup) -> TokenizedExamples:
    """Return the train examples with the copies, which the subset's seed decides, and the texts of other tasks."""
    config = context.config
    words: Any = setup.teacher.get_input_embeddings().weight

    def read() -> TokenizedExamples:
        settings, checkpoint = config.augmentation, config.teacher.checkpoint
        own = augment(setup.train, settings, setup.tokenizer, words, checkpoint, config.data.seed)
        return own if setup.other is None else join([own, setup.other])

    return on_main_process(context.run.accelerator, read)


@dataclass(frozen=True)
class Reader:
    """For whom texts are tokenised."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    """In tokens; longer texts are cut."""


def keep_tokens(context: RunContext, reader: Reader, own: TokenizedExamples, texts: UnlabelledTexts) -> Path:
    """Write the tokens of all that the stages read, unless they are there, and return their folder.

    It is whole or not there; in a shared cache, the first of two runs that write it at the same time does.

    Args:
        own: what the stages read beside the texts without labels.
    """
    config, checkpoints = context.config, context.folder.path / "checkpoints"
    root = checkpoints / STAGE_TOKENS if config.cache.dir is None else Path(config.cache.dir) / STAGE_TOKENS
    folder = root / _name(reader, own, texts)
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        workshop = make_workshop(root)
        write_tokens(workshop, own, _tokenised(reader, texts), len(reader.tokenizer))
        if folder.exists():
            remove(workshop)
        else:
            replace_directory(workshop, folder)
    tokens = len(open_tokens(folder).token_ids) - len(own.token_ids)
    counted = {"tokens": tokens, "share_of_stage_texts": len(texts) / (len(own) + len(texts))}
    write_atomically(checkpoints / COUNTED, json.dumps(counted))
    return folder


def _name(reader: Reader, own: TokenizedExamples, texts: UnlabelledTexts) -> str:
    """Return a name that changes with the texts, with which of them are used, and with how they are tokenised."""
    tokenizer = reader.tokenizer
    reads = [sorted(tokenizer.get_vocab().items()), [tokenizer(probe)["input_ids"] for probe in PROBES]]
    digest = hashlib.sha256(f"{texts.checksum} {reader.max_length} {json.dumps(reads)}".encode())
    digest.update(np.packbits(texts.kept).data)
    for array in (own.token_ids, own.token_type_ids, own.offsets, own.labels):
        digest.update(np.ascontiguousarray(array).reshape(-1).data)
    return digest.hexdigest()[:20]


def _tokenised(reader: Reader, texts: UnlabelledTexts) -> Iterator[TokenizedExamples]:
    with progress_bar(name="tokenise texts without labels", unit="text", total=len(texts)) as bar:
        for examples in texts.chunks():
            yield tokenize(examples, reader.tokenizer, reader.max_length)
            bar.update(len(examples))


def unlabelled_entry(context: RunContext, setup: DistillationSetup) -> UnlabelledEntry | None:
    """Return what the record says of the texts without labels, None where there are none."""
    texts = context.unlabelled
    if texts is None:
        return None
    path = context.folder.path / "checkpoints" / COUNTED
    last = context.folder.phase(setup.stages[-1].name)
    counted = read_object(path, f"remove {last} too, and start the same command again to have it written")
    return UnlabelledEntry(texts=len(texts), dropped=texts.dropped, **counted)
