"""Load a teacher: a finished classifier, an encoder to fine-tune, or a BERT from scratch."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distill.config.schema import ScratchConfig
from distill.data.batching import padded_length
from distill.data.tokenization import is_empty, train_tokenizer
from distill.models.checkpoints import CALLS, WRAPPERS, check_size, check_token_types, folder_problem, weights_problem
from distill.models.labels import settle_labels
from distill.models.windowed_bert import WindowedBert
from distill.tasks import Task
from distill.utils.errors import UserError, loading_problem


@dataclass(frozen=True)
class Teacher:
    """A classifier with its tokenizer, and whether its head is already trained."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    is_trained: bool
    new_pooler: bool = False
    """Whether the pooler that came with the encoder was replaced by one drawn anew."""
    label_note: str | None = None
    """What to tell of its labels, where they were put into the task's order."""


def weights_checksum(checkpoint: str) -> str:
    """Return a checksum of the weights in a folder; for a name of the Hub, whose snapshots do not change, the name."""
    files = [path for kind in ("*.safetensors", "*.bin") for path in sorted(Path(checkpoint).glob(kind))]
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest() if files else checkpoint


def load_teacher(
    checkpoint: str, task: Task, seed: int = 0, *, new_pooler: bool | None = False, key: str = "teacher.checkpoint"
) -> Teacher:
    """Load ``checkpoint`` as a BERT classifier for ``task``.

    A head that is missing is drawn from ``seed``, and so is a new pooler for an encoder: on request, or, for None,
    where its own was never trained. ``key`` names the checkpoint in messages.

    Raises:
        UserError: it cannot be read, is not a BERT, is torn, or belongs to another task or tokenizer.
    """
    who = f"{key.removesuffix('.checkpoint')} {checkpoint}"
    config = _load_config(checkpoint, key)
    check_size(config, Path(checkpoint), who)
    is_trained = "BertForSequenceClassification" in (config.architectures or [])
    if is_trained and config.num_labels != task.num_labels:
        raise UserError(
            f"{who} has {config.num_labels} labels but task {task.name} has {task.num_labels}; "
            "give a teacher of this task, or its encoder without the classifier"
        )
    tokenizer = load_tokenizer(checkpoint)
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"the tokenizer of {checkpoint} has {len(tokenizer)} entries but the model knows {config.vocab_size}; "
            "put the tokenizer that the model was trained with beside it"
        )
    check_token_types(config, tokenizer, who, pairs=len(task.text_columns) > 1)
    set_seed(seed)
    extra = {} if is_trained else label_settings(task)
    try:
        loaded: Any = WindowedBert.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            key_mapping=WRAPPERS,
            **CALLS,
            **extra,
        )
    except Exception as error:  # a damaged file makes transformers fail in any way there is
        raise UserError(
            f"cannot read the weights of {checkpoint}: {loading_problem(error)}; fetch it again"
        ) from error
    model, info = loaded
    if problem := weights_problem(model, info):
        raise UserError(f"{who} {problem}")
    allowed = () if is_trained else ("classifier.", "bert.pooler.")
    absent = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    missing = sorted(key for key in absent if not key.startswith(allowed or ("\0",)))
    if missing:
        raise UserError(
            f"checkpoint {checkpoint} is torn: {len(missing)} weights such as {missing[0]} are missing or of another "
            "size; fetch it again"
        )
    pooler = model.bert.pooler.dense
    came_along = not any(key.startswith("bert.pooler.") for key in absent)
    replaced = not is_trained and (came_along and not pooler.bias.any() if new_pooler is None else new_pooler)
    if replaced:
        set_seed(seed)
        nn.init.normal_(pooler.weight, std=config.initializer_range)
        nn.init.zeros_(pooler.bias)
    note = settle_labels(model, task, who) if is_trained else None
    return Teacher(model, tokenizer, is_trained, bool(replaced), note)


def teacher_from_scratch(size: ScratchConfig, task: Task, texts: Iterable[str], max_length: int, seed: int) -> Teacher:
    """Build an untrained BERT of the given size, with a WordPiece tokenizer trained on ``texts``."""
    tokenizer = train_tokenizer(texts, size.vocabulary_size)
    set_seed(seed)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        intermediate_size=size.intermediate_size,
        max_position_embeddings=max(padded_length(max_length), 128),
        **label_settings(task),
    )
    return Teacher(BertForSequenceClassification(config), tokenizer, is_trained=False)


def untrained_like(teacher: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Build the BERT that a teacher from scratch once was: its size, with weights drawn from ``seed``."""
    set_seed(seed)
    return BertForSequenceClassification(BertConfig.from_dict(teacher.config.to_dict()))


def load_tokenizer(checkpoint: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer beside a checkpoint; code of its own runs only if that is trusted.

    Raises:
        UserError: there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=trust_remote_code)
    except Exception as error:  # as above
        raise UserError(
            f"no tokenizer for {checkpoint}: {loading_problem(error)}; put its files beside the weights"
        ) from error
    if is_empty(tokenizer):
        raise UserError(
            f"no tokenizer for {checkpoint}; put the files of the one it was trained with beside the weights"
        )
    return tokenizer


def freeze(model: nn.Module) -> nn.Module:
    """Put a teacher into eval mode without gradients, for good."""
    return model.eval().requires_grad_(False)


def is_classifier(checkpoint: str) -> bool:
    """Tell whether a checkpoint already is a classifier rather than an encoder."""
    return "BertForSequenceClassification" in (_load_config(checkpoint).architectures or [])


def _load_config(checkpoint: str, key: str = "teacher.checkpoint") -> BertConfig:
    if problem := folder_problem(Path(checkpoint)):
        raise UserError(f"{key} {checkpoint} {problem}")
    try:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    except Exception as error:  # as above
        kind = "folder" if os.path.exists(checkpoint) else "folder or Hub name (is the network there?)"
        raise UserError(
            f"{key} {checkpoint}: no readable {kind}: {loading_problem(error)}; give a BERT checkpoint"
        ) from error
    if config.model_type != "bert":
        more = "" if key != "teacher.checkpoint" else ", or name the BERT encoder of the student as student.checkpoint"
        raise UserError(f"{key} {checkpoint} is a {config.model_type!r}, not a BERT; give a model_type 'bert'{more}")
    if config.is_decoder or config.add_cross_attention:
        raise UserError(
            f"{key} {checkpoint} is a decoder (is_decoder or add_cross_attention in its config.json); "
            "give a BERT encoder"
        )
    return config


def label_settings(task: Task) -> dict:
    """Return what the configuration of a classifier says of a task: its labels, and that it is a regression."""
    names = dict(enumerate(task.output_names))
    settings: dict[str, Any] = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    return settings | ({"problem_type": task.problem_type} if task.is_regression else {})
