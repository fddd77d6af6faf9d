"""What the stages read: the train examples, altered copies of them, texts of other tasks and texts without labels."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distill.config.student_start import other_encoder
from distill.data.augmentation import augment, join
from distill.data.batching import TokenizedExamples
from distill.data.decoding import decode
from distill.data.splits import Examples
from distill.data.token_store import bytes_on_disk, open_tokens, write_tokens
from distill.data.tokenization import PROBES, tokenize
from distill.data.unlabelled import UnlabelledTexts
from distill.data.word_replacement import load_masked_lm
from distill.evaluation.record_parts import UnlabelledEntry
from distill.models.positions import find_positions
from distill.training.accelerator import on_main_process
from distill.utils.errors import UserError
from distill.utils.files import read_object, remove, removed_on_error, replace_directory, write_atomically
from distill.utils.progress import progress_bar
from pipelines.run.context import DistillationSetup, OtherEncoder, RunContext, StageTexts
from teachers.cache_folder import STAGE_TOKENS, write_about
from teachers.loading import load_tokenizer
from teachers.output_cache import make_workshop

COUNTED = "unlabelled.json"
"""What was counted while the texts without labels were tokenised, below ``checkpoints/``."""


@dataclass(frozen=True)
class TextCount:
    """How much the stages read in one pass."""

    rows: int
    tokens: float
    """Of all rows together; of texts without labels beyond the sample, an estimate."""


def count_stage_texts(context: RunContext, setup: DistillationSetup | OtherEncoder) -> TextCount:
    """Return how much there is to read, before anything but a sample of the texts without labels is tokenised.

    Args:
        setup: whose tokens are counted.
    """
    times = 1 + (context.config.augmentation.copies or 0)
    parts = [setup.train] * times + ([] if setup.other is None else [setup.other])
    unlabelled = count_unlabelled(context, setup)
    rows = sum(map(len, parts)) + unlabelled.rows
    return TextCount(rows, sum(len(part.token_ids) for part in parts) + unlabelled.tokens)


def count_unlabelled(context: RunContext, setup: DistillationSetup | OtherEncoder) -> TextCount:
    """Return the same of the texts without labels alone."""
    if context.unlabelled is None or setup.unlabelled is None:
        return TextCount(0, 0)
    return TextCount(len(context.unlabelled), len(context.unlabelled) * float(setup.unlabelled.lengths.mean()))


def disk_of_stage_texts(context: RunContext, setup: DistillationSetup) -> int:
    """Return the bytes that the tokens will take, 0 where they stay in memory or are on disk already."""
    if context.unlabelled is None or (context.folder.path / "checkpoints" / COUNTED).exists():
        return 0
    kept = [(setup, setup.tokenizer), (setup.other_encoder, setup.source.tokenizer)]
    counts = [(count_stage_texts(context, read), len(tokenizer)) for read, tokenizer in kept if read is not None]
    return sum(bytes_on_disk(texts.rows, texts.tokens, vocabulary) for texts, vocabulary in counts)


def read_stage_texts(context: RunContext, setup: DistillationSetup) -> StageTexts:
    """Return what the stages read; with texts without labels, mapped from files that the main process writes once."""
    own = augmented_train(context, setup)
    texts = context.unlabelled
    if texts is None:
        return own
    pairs = list(zip(readers(context, setup), (own.examples, own.for_teacher), strict=False))

    def write() -> list[Path]:
        folders = [keep_tokens(context, reader, part, texts) for reader, part in pairs]
        note_counts(context, len(own.examples), len(own.examples.token_ids), folders[0], texts)
        return folders

    opened = [open_tokens(folder) for folder in on_main_process(context.run.accelerator, write)]
    return StageTexts(opened[0], opened[-1])


def augmented_train(context: RunContext, setup: DistillationSetup) -> StageTexts:
    """Return the train examples with the copies, which the subset's seed decides, and the texts of other tasks.

    Copies are made of what the student is made of, in its tokens; a teacher with others is given what they say.
    """
    config = context.config
    words: Any = setup.start.get_input_embeddings().weight

    def read() -> StageTexts:
        masked_lm = load_asked_masked_lm(context, setup)
        own = augment(setup.train, config.augmentation, setup.tokenizer, words, masked_lm, config.data.seed)
        examples = own if setup.other is None else join([own, setup.other])
        across = setup.other_encoder
        if across is None:
            return StageTexts(examples, examples)
        again = [across.train]
        if len(own) > len(setup.train):
            said = decode(own, np.arange(len(setup.train), len(own)), setup.tokenizer, len(context.task.text_columns))
            again.append(readers(context, setup)[1].read(said))
        return StageTexts(examples, join([*again, *([] if across.other is None else [across.other])]))

    return on_main_process(context.run.accelerator, read)


def load_asked_masked_lm(context: RunContext, setup: DistillationSetup) -> PreTrainedModel | None:
    """Load the masked language model that copies of the kind masked_lm ask; None where none are made.

    Raises:
        UserError: it cannot be read, has no such head, or reads other tokens than the student.
    """
    config, settings = context.config, context.config.augmentation
    made = settings.kinds if settings.choose else settings.kinds[: settings.copies or 0]
    if "masked_lm" not in made:
        return None
    checkpoints = {
        "augmentation.masked_lm": settings.masked_lm,
        "student.checkpoint": other_encoder(config),
        "teacher.checkpoint": config.teacher.checkpoint,
    }
    key = next((key for key, checkpoint in checkpoints.items() if checkpoint is not None), "teacher.checkpoint")
    model: PreTrainedModel = load_masked_lm(checkpoints[key], key, context.device)
    who, way_out = f"{key} {checkpoints[key]}", "give another masked language model as augmentation.masked_lm"
    named = settings.masked_lm
    if named is not None and load_tokenizer(named).get_vocab() != setup.tokenizer.get_vocab():
        raise UserError(f"{who} reads other tokens than the student; {way_out}, with the student's vocabulary")
    words: Any = model.get_input_embeddings()
    if len(words.weight) < len(setup.tokenizer):
        raise UserError(f"{who} has {len(words.weight):,} words for {len(setup.tokenizer):,} tokens; {way_out}")
    positions, longest = find_positions(model), int(setup.train.lengths.max())
    if positions is not None and positions < longest:
        raise UserError(f"{who} reads {positions} tokens, and texts have up to {longest}; {way_out}")
    return model


@dataclass(frozen=True)
class Reader:
    """For whom texts are tokenised."""

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    """In tokens; longer texts are cut."""
    reading: Mapping[str, Any] = field(default_factory=dict)
    """As `distill.models.inputs.reading_of` returns it; nothing for one whose layers are BERT's."""

    def read(self, texts: Examples) -> TokenizedExamples:
        """Return the texts in its tokens."""
        return tokenize(texts, self.tokenizer, self.max_length, **self.reading)


def readers(context: RunContext, setup: DistillationSetup) -> list[Reader]:
    """Return the student and, if it reads other tokens, the teacher."""
    across = setup.other_encoder
    student = Reader(setup.tokenizer, context.config.data.max_length)
    return (
        [student] if across is None else [student, Reader(setup.source.tokenizer, across.max_length, across.reading)]
    )


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
        with removed_on_error(workshop):
            write_tokens(workshop, own, _tokenised(reader, texts), len(reader.tokenizer))
            write_about(workshop, texts=len(own) + len(texts), made_for=str(context.folder.path))
            if folder.exists():
                remove(workshop)
            else:
                replace_directory(workshop, folder)
    os.utime(folder)  # the time of its last use, for who lists the cache
    return folder


def note_counts(context: RunContext, rows: int, tokens: int, folder: Path, texts: UnlabelledTexts) -> None:
    """Write down for the record how much the texts without labels are, in the student's tokens.

    Args:
        rows: of what the stages read beside them.
        tokens: of the same.
        folder: of all the tokens together.
    """
    more = len(open_tokens(folder).token_ids) - tokens
    counted = {"tokens": more, "share_of_stage_texts": len(texts) / (rows + len(texts))}
    write_atomically(context.folder.path / "checkpoints" / COUNTED, json.dumps(counted))


def _name(reader: Reader, own: TokenizedExamples, texts: UnlabelledTexts) -> str:
    """Return a name that changes with the texts, with which of them are used, and with how they are tokenised."""
    tokenizer = reader.tokenizer
    reads = [sorted(tokenizer.get_vocab().items()), [tokenizer(probe)["input_ids"] for probe in PROBES]]
    digest = hashlib.sha256(f"{texts.checksum} {reader.max_length} {json.dumps(reads)}".encode())
    if reader.reading:
        digest.update(json.dumps(dict(reader.reading), sort_keys=True).encode())
    digest.update(np.packbits(texts.kept).data)
    for array in (own.token_ids, own.token_type_ids, own.offsets, own.labels):
        digest.update(np.ascontiguousarray(array).reshape(-1).data)
    return digest.hexdigest()[:20]


def _tokenised(reader: Reader, texts: UnlabelledTexts) -> Iterator[TokenizedExamples]:
    with progress_bar(name="tokenise texts without labels", unit="text", total=len(texts)) as bar:
        for examples in texts.chunks():
            yield reader.read(examples)
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
