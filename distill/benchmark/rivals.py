"""The same training steps as other libraries take them, each by its own code; what logs and saves is left out.

transformers' Trainer stands in requirements.txt, TextBrewer does not: `pip install textbrewer`. Both take the batches
they would take, the Trainer of about one length, TextBrewer of any, each padded to its longest text, and train all
parameters by the AdamW that is theirs by default: TextBrewer takes torch's as it comes. Shapes: B batch, N sequence
length, D hidden size.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorWithPadding, PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

from distill.data.batching import TokenizedExamples, collate
from distill.models.inputs import accepted_inputs

RATE = 1e-5
"""Of their optimizers; it changes no time."""


def trainer_steps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: TokenizedExamples,
    batch_size: int,
    *,
    bf16: bool,
) -> Callable[[], None]:
    """Return a function that takes one step of fine-tuning as transformers' Trainer does, with `group_by_length`.

    Args:
        model: trained in place.
        bf16: whether products are computed in it.
    """
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is written
        per_device_train_batch_size=batch_size,
        train_sampling_strategy="group_by_length",
        dataloader_drop_last=True,
        learning_rate=RATE,
        bf16=bf16,
        use_cpu=not torch.cuda.is_available(),
        report_to=[],
        save_strategy="no",
    )
    collator = DataCollatorWithPadding(tokenizer)
    trainer: Any = Trainer(model=model, args=arguments, train_dataset=rows_of(examples), data_collator=collator)
    loader = trainer.get_train_dataloader()
    trainer.create_optimizer_and_scheduler(num_training_steps=1_000_000)

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    waiting = batches()
    model.train()

    def take_step() -> None:
        batch = dict(next(waiting))
        inputs: dict[str, Any] = {**accepted_inputs(model, batch), "labels": batch["labels"]}
        trainer.training_step(model, inputs, batch_size)
        trainer.accelerator.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        model.zero_grad()

    return take_step


def rows_of(examples: TokenizedExamples) -> list[dict[str, Any]]:
    """Return examples as the Trainer reads them: a dictionary each."""
    bounds = zip(examples.offsets[:-1], examples.offsets[1:], examples.labels, strict=True)
    return [
        {
            "input_ids": examples.token_ids[start:end].tolist(),
            "token_type_ids": examples.token_type_ids[start:end].tolist(),
            "attention_mask": [1] * int(end - start),
            "labels": label,
        }
        for start, end, label in bounds
    ]


def has_textbrewer() -> bool:
    """Whether TextBrewer is installed."""
    return find_spec("textbrewer") is not None


def textbrewer_steps(
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    pairs: Sequence[tuple[int, int]],
    temperature: float,
    examples: TokenizedExamples,
    batch_size: int,
    *,
    bf16: bool,
) -> Callable[[], None]:
    """Return a function that takes one step of TextBrewer's GeneralDistiller: hidden states, and logits.

    Args:
        student: trained in place.
        pairs: of a student's layer and the teacher's whose output (B, N, D) it is to have, both counted from 0.
        temperature: of the logits.
        bf16: whether products are computed in it.
    """
    from textbrewer import DistillationConfig, GeneralDistiller, TrainingConfig

    matches = [
        {"layer_S": ours + 1, "layer_T": theirs + 1, "feature": "hidden", "loss": "hidden_mse", "weight": 1}
        for ours, theirs in pairs  # number 0 is what the first layer reads
    ]

    def adaptor(_: Any, outputs: Any) -> dict[str, Any]:
        return {"hidden": outputs.hidden_states, "logits": outputs.logits}

    device = str(student.device)
    distiller = GeneralDistiller(
        TrainingConfig(device=device, log_dir=None, output_dir=tempfile.gettempdir()),
        DistillationConfig(temperature=temperature, kd_loss_weight=1, intermediate_matches=matches),
        *(teacher.eval(), student.train(), adaptor, adaptor),
    )
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE)
    draw = np.random.default_rng(1)

    def take_step() -> None:
        batch, _ = collate(examples, draw.choice(len(examples), batch_size, replace=False), device)
        inputs: dict[str, Any] = {**accepted_inputs(student, batch), "output_hidden_states": True}
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16):
            loss, _ = distiller.train_on_batch(inputs, {})
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return take_step
