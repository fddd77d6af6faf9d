"""The teacher of task text: a language model with softmax attention, from scratch or from a checkpoint."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from transformers import AutoConfig, BertForMaskedLM, PreTrainedModel

from distill.config.schema import BYTE, WORDPIECE, Config, ScratchConfig
from distill.data.batching import padded_length
from distill.data.splits import Splits
from distill.data.text_tokenizers import text_tokenizer, unit_of
from distill.models.checkpoints import checkpoint_problem, weights_problem
from distill.models.own_memory import in_own_memory
from distill.tasks import CAUSAL, MASKED, Task
from distill.utils.errors import UserError, loading_problem
from students import StudentConfig, StudentForCausalLM, StudentForMaskedLM
from teachers.loading import Teacher, load_tokenizer

CLASSES: dict[str, Any] = {CAUSAL: StudentForCausalLM, MASKED: StudentForMaskedLM}
"""Of the language models of this project, by the kind of the task."""
HEAD = "cls."


def load_language_model(
    checkpoint: str, task: Task, seed: int, max_length: int, key: str, unit: str | None = None
) -> Teacher:
    """Load a causal model of this project, or a masked one of it or of BERT's own.

    A BERT without its masked-LM head gets a new one, and is then not trained yet. It must read tokens of the ``unit``,
    where one is given.

    Raises:
        UserError: it cannot be read, is of another kind, has another attention than softmax, or too few positions.
    """
    who = f"{key} {checkpoint}"
    if problem := checkpoint_problem(checkpoint):
        raise UserError(f"{who} {problem}")
    try:
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    except Exception as error:  # a damaged file makes transformers fail in any way there is
        raise UserError(f"{who}: no readable folder or Hub name: {loading_problem(error)}") from error
    kind = task.language_model
    assert kind is not None, "only task text has language models"
    ours = config.model_type == StudentConfig.model_type
    fits = (ours and config.causal == (kind == CAUSAL)) or (kind == MASKED and config.model_type == "bert")
    if not fits:
        others = "a causal model that this project trained" if kind == CAUSAL else "a BERT with its masked-LM head"
        its_own = (CAUSAL if config.causal else MASKED) if ours else f"of type {config.model_type!r}"
        raise UserError(f"{who} is {its_own}, no {kind} language model; give {others}, or null for a new one")
    if ours and config.attention != "softmax":
        raise UserError(
            f"{who} has {config.attention_name} attention; give the model with softmax attention that it came of"
        )
    tokenizer = load_tokenizer(checkpoint)
    if unit not in (None, unit_of(tokenizer)):
        raise UserError(f"data.text_unit is {unit!r} but {who} reads {unit_of(tokenizer)}s; leave data.text_unit out")
    if config.max_position_embeddings < max_length:
        raise UserError(
            f"data.max_length is {max_length} but {who} has {config.max_position_embeddings} positions; give fewer"
        )
    set_seed(seed)
    model_class = CLASSES[kind] if ours else BertForMaskedLM
    try:
        loaded: Any = model_class.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
    except Exception as error:
        raise UserError(
            f"cannot read the weights of {checkpoint}: {loading_problem(error)}; fetch it again"
        ) from error
    model, info = in_own_memory(loaded[0]), loaded[1]
    if problem := weights_problem(model, info):
        raise UserError(f"{who} {problem}")
    missing = sorted(info["missing_keys"])
    if any(not name.startswith(HEAD) for name in missing):
        raise UserError(f"checkpoint {checkpoint} is torn: weights such as {missing[0]} are missing; fetch it again")
    return Teacher(model, tokenizer, is_trained=not missing)


def language_model_from_scratch(
    size: ScratchConfig, task: Task, unit: str | None, text: Iterable[str], max_length: int, seed: int
) -> Teacher:
    """Build an untrained language model of the given size, with a tokenizer of ``text``, which comes in blocks.

    Args:
        unit: of `distill.config.schema.TEXT_UNITS`; None: bytes for a causal model, word pieces for a masked one.
    """
    is_causal = task.language_model == CAUSAL
    tokenizer = text_tokenizer(unit or (BYTE if is_causal else WORDPIECE), text, size.vocabulary_size)
    set_seed(seed)
    config = StudentConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        intermediate_size=size.intermediate_size,
        max_position_embeddings=padded_length(max_length),
        attention_probs_dropout_prob=0.0,  # on a CPU PyTorch's fused kernel has none, and most mechanisms have no map
        attention="softmax",
        causal=is_causal,
    )
    return Teacher(CLASSES[task.language_model](config), tokenizer, is_trained=False)  # type: ignore[index]


def starting_language_model(config: Config, task: Task, splits: Splits, finished: Path | None) -> Teacher:
    """Return the run's own teacher where it is ``finished``, else what it starts from."""
    length, seed = config.data.max_length, config.seed
    checkpoint = str(finished) if finished is not None else config.teacher.checkpoint
    if checkpoint is not None:
        unit = config.data.text_unit
        loaded = load_language_model(checkpoint, task, seed, length, "teacher.checkpoint", unit)
        return Teacher(loaded.model, loaded.tokenizer, loaded.is_trained or finished is not None)
    assert splits.text is not None, "task text has one"
    text = splits.text.train
    return language_model_from_scratch(config.teacher.scratch, task, config.data.text_unit, text, length, seed)


def untrained_language_model(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """Return a language model of the same size with weights drawn from ``seed``."""
    set_seed(seed)
    return type(model)(type(model.config).from_dict(model.config.to_dict()))
