"""Load any sequence classifier as the teacher of a student that is made of another encoder."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from accelerate.utils import set_seed
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

from distill.data.batching import collate
from distill.data.splits import Examples
from distill.data.tokenization import PROBES, tokenize
from distill.models.checkpoints import (
    CALLS,
    MOST_LAYERS,
    WRAPPERS,
    check_token_types,
    checkpoint_problem,
    weights_problem,
)
from distill.models.inputs import accepted_inputs, reading_of
from distill.models.labels import settle_labels
from distill.models.own_memory import in_own_memory
from distill.models.positions import find_positions
from distill.models.windowed_bert import ReadsWindows
from distill.tasks import Task
from distill.utils.errors import UserError, first_line, loading_problem
from students.families import FAMILIES
from teachers.loading import NOTHING, Teacher, label_settings, load_teacher, load_tokenizer
from teachers.redrawing import Redrawn

AUTO_CLASS = "AutoModelForSequenceClassification"


def load_any_teacher(
    checkpoint: str,
    task: Task,
    seed: int = 0,
    *,
    redrawn: Redrawn = NOTHING,
    trust_remote_code: bool = False,
) -> Teacher:
    """Load ``checkpoint`` as a classifier for ``task``, of whatever kind transformers has one, or of its own code.

    One whose layers are BERT's is loaded by `teachers.loading.load_teacher`, which reads long texts in windows. A head
    that is missing is drawn from ``seed``.

    Args:
        redrawn: what of it is drawn anew before it is fine-tuned; of one whose layers are BERT's alone.
        trust_remote_code: whether code that the checkpoint brings along may run.

    Raises:
        UserError: it cannot be read, is no classifier, is torn, or belongs to another task or tokenizer.
    """
    who = f"teacher {checkpoint}"
    config = _read_config(checkpoint, trust_remote_code)
    if config.model_type in FAMILIES and getattr(config, "inner_group_num", 1) == 1:
        return load_teacher(checkpoint, task, seed, redrawn=redrawn)
    if redrawn.head or redrawn.layers:
        raise UserError(
            f"{who} is {config.model_type!r}: teacher.new_head and teacher.new_layers take a BERT or another family "
            "with its layers; leave them out"
        )
    is_trained = any("Classifi" in name for name in config.architectures or [])
    if is_trained and config.num_labels != task.num_labels:
        raise UserError(
            f"{who} has {config.num_labels} labels but task {task.name} has {task.num_labels}; "
            "give a teacher of this task, or its encoder without the classifier"
        )
    tokenizer = load_tokenizer(checkpoint, trust_remote_code=trust_remote_code)
    if len(tokenizer) > (getattr(config, "vocab_size", None) or len(tokenizer)):
        raise UserError(
            f"the tokenizer of {checkpoint} has {len(tokenizer)} entries but the model knows {config.vocab_size}; "
            "put the tokenizer that the model was trained with beside it"
        )
    check_token_types(config, tokenizer, who, pairs=len(task.text_columns) > 1)
    set_seed(seed)
    model, info = _load_model(checkpoint, trust_remote_code, {} if is_trained else label_settings(task))
    _check_weights(model, info, checkpoint, is_trained)
    if model.config.pad_token_id is None:  # a model that looks for the last token before the padding needs it
        model.config.pad_token_id = tokenizer.pad_token_id
    teacher = Teacher(model, tokenizer, is_trained, False, settle_labels(model, task, who) if is_trained else None)
    _check_answers(teacher, task, who)
    return teacher


def teacher_length(teacher: Teacher, max_length: int) -> int:
    """Return how many tokens of a text a teacher is given: ``max_length``, or as many as it has positions.

    One whose layers are BERT's reads what is longer in windows.
    """
    if isinstance(teacher.model, ReadsWindows):
        return max_length
    limits = (find_positions(teacher.model), teacher.tokenizer.model_max_length)
    return min([max_length, *(limit for limit in limits if limit)])


def _read_config(checkpoint: str, trust_remote_code: bool) -> PreTrainedConfig:
    """Read the configuration and refuse what is no sequence classifier and cannot become one."""
    start = f"teacher.checkpoint {checkpoint}"
    if problem := checkpoint_problem(checkpoint):
        raise UserError(f"{start} {problem}")
    try:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=trust_remote_code)
    except Exception as error:  # a damaged file makes transformers fail in any way there is
        if problem := checkpoint_problem(checkpoint, fetch=True):
            raise UserError(f"{start} {problem}") from error
        kind = "folder" if os.path.exists(checkpoint) else "folder or Hub name (is the network there?)"
        problem = loading_problem(error)
        way_out = "read that code, then give --teacher.trust_remote_code true"
        if "code of its own" not in problem:
            way_out = "give a checkpoint that save_pretrained wrote"
        raise UserError(f"{start}: no readable {kind}: {problem}; {way_out}") from error
    layers = getattr(config, "num_hidden_layers", None) or 0
    if layers > MOST_LAYERS:
        raise UserError(
            f"{start}: its config.json says num_hidden_layers {layers:,}; put the one of its weights there"
        )
    code = getattr(config, "auto_map", None) or {}
    if config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES and AUTO_CLASS not in code:
        raise UserError(
            f"{start} is a {config.model_type!r}, of which there is no sequence classifier; give a model that "
            f"{AUTO_CLASS} loads, such as a DeBERTa, ModernBERT, XLNet or RoBERTa"
        )
    return config


def _load_model(checkpoint: str, trust_remote_code: bool, labels: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            checkpoint,
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused by their names
            key_mapping=WRAPPERS,
            **CALLS,
            **labels,
        )
    except Exception as error:  # as above
        problem = loading_problem(error)
        way_out = "fetch it again"
        if "code of its own" in problem:
            way_out = "read that code, then give --teacher.trust_remote_code true"
        raise UserError(f"cannot read the weights of {checkpoint}: {problem}; {way_out}") from error
    return in_own_memory(model), info


def _check_weights(model: PreTrainedModel, info: Mapping[str, Any], checkpoint: str, is_trained: bool) -> None:
    """Refuse weights that are missing, unless they are those of the head of an encoder."""
    if problem := weights_problem(model, info):
        raise UserError(f"teacher {checkpoint} {problem}")
    absent = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
    prefix = f"{model.base_model_prefix}."
    missing = sorted(
        key for key in absent if is_trained or (key.startswith(prefix) and not key.startswith(f"{prefix}pooler."))
    )
    if missing:
        raise UserError(
            f"checkpoint {checkpoint} is torn: {len(missing)} weights such as {missing[0]} are missing or of another "
            "size; fetch it again"
        )


@torch.no_grad()
def _check_answers(teacher: Teacher, task: Task, who: str) -> None:
    """Let the teacher read two texts of different lengths, padded, and refuse one that gives no answers to them."""
    pair = len(task.text_columns)
    texts = Examples(np.arange(2), [(text[:20],) * pair for text in (PROBES[0], "a")], np.zeros(2, np.int64))
    tokens = tokenize(texts, teacher.tokenizer, 16, **reading_of(teacher.model, teacher.tokenizer))
    inputs, _ = collate(tokens, np.arange(2))
    problem = None
    try:
        logits = teacher.model.eval()(**accepted_inputs(teacher.model, inputs)).logits
    except Exception as error:  # models of any code
        problem = first_line(error)
        if teacher.tokenizer.pad_token_id is None:
            problem = "its tokenizer has no padding token; set tokenizer.pad_token = tokenizer.eos_token and save it"
    else:
        if logits.shape != (2, task.num_labels):
            problem = f"it answers with {tuple(logits.shape)} numbers, not one row of {task.num_labels} for each text"
    if problem is not None:
        raise UserError(f"{who} cannot read a batch of two texts: {problem}")
