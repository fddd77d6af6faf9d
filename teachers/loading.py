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
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distill.config.schema import ScratchConfig
from distill.data.batching import padded_length
from distill.data.tokenization import is_empty, train_tokenizer
from distill.models.checkpoints import (
    CALLS,
    WRAPPERS,
    check_size,
    check_token_types,
    checkpoint_problem,
    weights_problem,
)
from distill.models.labels import settle_labels
from distill.models.own_memory import in_own_memory
from distill.models.windowed_bert import classifier_class, plain_class
from distill.tasks import Task
from distill.utils.errors import UserError, loading_problem
from distill.utils.files import file_checksum
from students.families import FAMILIES, OURS, own_name, why_not
from teachers.redrawing import Redrawn, redraw, top_layers

NOTHING = Redrawn()

OTHER_STUDENT = "name a BERT-like encoder for the student as student.checkpoint"
"""What to do with a teacher whose layers no student can be made of."""
OTHER_ENCODER = "give a BERT-like encoder"
TEACHER_KEY = "teacher.checkpoint"
SETTINGS = ("config.json", "tokenizer*", "vocab*", "*.model", "added_tokens.json", "special_tokens_map.json")
"""Files of a checkpoint beside its weights that decide what it answers."""


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


def settings_checksum(checkpoint: str) -> str | None:
    """Return a checksum of what else in a folder decides the answers, configuration and tokenizer; None for a name."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        return None
    files = sorted({path for kind in SETTINGS for path in folder.glob(kind) if path.is_file()})
    return hashlib.sha256("".join(f"{path.name} {file_checksum(path)}\n" for path in files).encode()).hexdigest()


def load_teacher(
    checkpoint: str, task: Task, seed: int = 0, *, redrawn: Redrawn = NOTHING, key: str = TEACHER_KEY
) -> Teacher:
    """Load ``checkpoint`` as a classifier for ``task``.

    A head that is missing is drawn from ``seed``, and so is what is to be ``redrawn`` of a model that will be
    fine-tuned. ``key`` names the checkpoint in messages.

    Raises:
        UserError: it cannot be read, is of no family whose layers are BERT's, is torn, or belongs to another task or
            tokenizer.
    """
    who = f"{key.removesuffix('.checkpoint')} {checkpoint}"
    config = _load_config(checkpoint, key)
    check_size(config, Path(checkpoint), who)
    is_trained = _names_classifier(config) and not redrawn.head
    if is_trained and config.num_labels != task.num_labels:
        raise UserError(
            f"{who} has {config.num_labels} labels but task {task.name} has {task.num_labels}; give a teacher of this "
            "task, its encoder without the classifier, or teacher.new_head true to fine-tune it"
        )
    tokenizer = load_tokenizer(checkpoint)
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"the tokenizer of {checkpoint} has {len(tokenizer)} entries but the model knows {config.vocab_size}; "
            "put the tokenizer that the model was trained with beside it"
        )
    check_token_types(config, tokenizer, who, pairs=len(task.text_columns) > 1)
    set_seed(seed)
    # Of a classifier of another task the problem that it solved would stay.
    extra = {} if is_trained else {"problem_type": None} | label_settings(task)
    try:
        loaded: Any = classifier_class(config).from_pretrained(
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
    model, info = in_own_memory(loaded[0]), loaded[1]
    if problem := weights_problem(model, info):
        raise UserError(f"{who} {problem}")
    # Of RoBERTa and its like the pooler is a layer of the head, which no encoder brings along.
    pooler_name, *head = (own_name(config, f"{name}.", ()) for name in ("bert.pooler.dense", "classifier"))
    allowed = () if is_trained else (pooler_name, *head)
    absent = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    missing = sorted(key for key in absent if not key.startswith(allowed or ("\0",)))
    if missing:
        raise UserError(
            f"checkpoint {checkpoint} is torn: {len(missing)} weights such as {missing[0]} are missing or of another "
            "size; fetch it again"
        )
    new_pooler = False
    if not is_trained:
        new_pooler = _has_new_pooler(model, pooler_name, absent, redrawn)
        _redraw(model, redrawn, pooler_name if new_pooler else None, head, seed, who)
    elif redrawn.layers:
        raise UserError(
            f"teacher.new_layers is {redrawn.layers}, but {who} is a finished classifier and taken as it is; give "
            "teacher.new_head true to fine-tune it, or 0"
        )
    note = settle_labels(model, task, who) if is_trained else None
    return Teacher(model, tokenizer, is_trained, new_pooler, note)


def _has_new_pooler(model: Any, name: str, absent: Iterable[str], redrawn: Redrawn) -> bool:
    """Tell whether the pooler that came along is drawn anew: on request, or where it was never trained."""
    came_along = not any(key.startswith(name) for key in absent)
    wanted = came_along and not model.get_submodule(name.rstrip(".")).bias.any()
    wanted = wanted if redrawn.pooler is None else redrawn.pooler
    return bool(name.startswith(f"{model.base_model_prefix}.") and wanted)


def _redraw(
    model: PreTrainedModel, redrawn: Redrawn, pooler: str | None, head: Iterable[str], seed: int, who: str
) -> None:
    """Draw parts of a model anew, from ``seed``."""
    set_seed(seed)
    if pooler is not None:
        redraw(model, [model.get_submodule(pooler.rstrip("."))])
    if redrawn.layers:
        try:
            redraw(model, top_layers(model, redrawn.layers))
        except ValueError as error:
            raise UserError(
                f"teacher.new_layers is {redrawn.layers}: {who} cannot, {error}; give fewer, or 0"
            ) from error
    if redrawn.head:
        redraw(model, [model.get_submodule(name.rstrip(".")) for name in head])


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
    """Build what a teacher from scratch once was: its family and size, with weights drawn from ``seed``."""
    set_seed(seed)
    plain: Any = plain_class(teacher)
    return plain(type(teacher.config).from_dict(teacher.config.to_dict()))


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
    return _names_classifier(_load_config(checkpoint))


def _names_classifier(config: PreTrainedConfig) -> bool:
    return FAMILIES[config.model_type].classifier in (config.architectures or [])


def _load_config(checkpoint: str, key: str = TEACHER_KEY) -> PreTrainedConfig:
    if problem := checkpoint_problem(checkpoint):
        raise UserError(f"{key} {checkpoint} {problem}")
    try:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    except Exception as error:  # as above
        if problem := checkpoint_problem(checkpoint, fetch=True):
            raise UserError(f"{key} {checkpoint} {problem}") from error
        kind = "folder" if os.path.exists(checkpoint) else "folder or Hub name (is the network there?)"
        raise UserError(
            f"{key} {checkpoint}: no readable {kind}: {loading_problem(error)}; give a BERT checkpoint"
        ) from error
    is_teacher = key == TEACHER_KEY
    if config.model_type in OURS:
        other = "the teacher that it was distilled from" if is_teacher else "an encoder that is none"
        raise UserError(f"{key} {checkpoint} is a student; give {other}")
    if problem := why_not(config):
        raise UserError(f"{key} {checkpoint} {problem}; {OTHER_STUDENT if is_teacher else OTHER_ENCODER}")
    return config


def label_settings(task: Task) -> dict:
    """Return what the configuration of a classifier says of a task: its labels, and that it is a regression."""
    names = dict(enumerate(task.output_names))
    settings: dict[str, Any] = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    return settings | ({"problem_type": task.problem_type} if task.is_regression or task.multi_label else {})
