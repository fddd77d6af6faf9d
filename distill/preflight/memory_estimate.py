"""How much memory a training step needs, and a run on disk: computed from the models, nothing is trained.

Legend: P parameters, T those that are trained, N processes, e bytes of a number (2 where DeepSpeed trains in half
precision, else 4); Adam keeps two numbers for each trained parameter.
"""

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from distill.data.token_predictions import predicting
from distill.models.inputs import accepted_inputs
from distill.training.launcher import Sharding

FLOAT = 4
ADAM = 8
PREDICTIONS = {"logits": 9, "labels": 4}
"""Arrays of the size of a language model's predictions, float32, that a loss of them holds at once, theirs and the
teacher's included: the peak of a process with a head of 30,000 words, in such arrays."""
LIMITS = (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"))
"""What a container may use and uses, under /sys/fs/cgroup: version 2, version 1."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process: on the device where it trains, and in the machine's memory through offloading."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    offloaded: int = 0

    @property
    def certain(self) -> int:
        """What is there throughout training, whatever the batch."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        return self.certain + self.activations


@dataclass(frozen=True)
class DiskOfPhase:
    """What a phase keeps on disk while it trains."""

    parameters: int
    trained: int
    """Of the parameters: Adam's states are kept of these."""
    epochs: int
    """Whose weights are kept: those that were the best so far, or are averaged."""
    checkpoints: int
    """At a time, that which is being written included."""


def state_memory(parameters: int, trained: int, resident: int, activations: int, sharding: Sharding) -> Memory:
    """Return the memory of a process that trains ``trained`` of ``parameters`` weights with Adam.

    Without DeepSpeed: weights 4P, gradients 4T (DDP copies them into buckets: 8T), Adam 8T. With DeepSpeed a whole
    fp32 copy 4P stays beside the engine, for evaluation and saving; the engine holds weights eP, a bucket of
    gradients eT, and 1/N of gradients eT, fp32 weights 4T and Adam 8T. ZeRO-3 keeps only eP/N of the weights
    between steps, but gathers models of less than a thousand million weights whole while it computes, so that
    its peak is that of ZeRO-2 and eP/N.

    Args:
        resident: bytes of models that are only read, such as the teacher.
        activations: bytes that the backward pass of one process reads.
    """
    weights = FLOAT * parameters + resident
    if sharding.zero_stage is None:
        copies = 1 if sharding.processes == 1 else 2
        return Memory(weights, copies * FLOAT * trained, ADAM * trained, activations)
    element = 2 if sharding.half else FLOAT
    weights += element * parameters
    if sharding.zero_stage == 3:
        weights += element * parameters // sharding.processes
    shard = trained // sharding.processes
    states = (FLOAT + ADAM) * shard
    if sharding.offload:
        return Memory(weights, element * (trained + shard), 0, activations, offloaded=states + FLOAT * shard)
    return Memory(weights, element * (trained + shard), states, activations)


def activation_memory(
    model: nn.Module, length: int, dtype: torch.dtype | None = None, predicted: int | None = None
) -> tuple[int, int]:
    """Return the bytes that a forward pass in training keeps for the backward pass: of one example, of each more.

    Counted on one and on two examples; what the cast of weights to ``dtype`` (of autocast; None: none) costs does not
    grow with the batch.

    Args:
        predicted: of how many tokens of an example a language model computes predictions; None: of all.
    """
    device = next(model.parameters()).device

    def bytes_of(examples: int) -> int:
        places = None if predicted is None else torch.arange(predicted, device=device).expand(examples, -1)
        return saved_bytes(model, examples, length, dtype, places)

    one, two = bytes_of(1), bytes_of(2)
    return one, two - one


def prediction_memory(losses: Collection[str], tokens: int, vocabulary: int) -> int:
    """Return the bytes of a language model's predictions, its teacher's, and of what losses make of both."""
    held = [PREDICTIONS[loss] for loss in losses if loss in PREDICTIONS]
    arrays = max(held, default=0) + max(0, len(held) - 1)  # of the loss before, one is kept for its gradient
    return arrays * tokens * vocabulary * FLOAT


def saved_bytes(
    model: nn.Module, batch_size: int, length: int, dtype: torch.dtype | None, places: Tensor | None = None
) -> int:
    """Return the bytes of all tensors that autograd keeps, weights aside, after one forward pass in training.

    Args:
        places: (batch_size, M), where a language model predicts; None: everywhere.
    """
    weights = {id(parameter.untyped_storage()) for parameter in model.parameters()}
    kept: dict[int, Any] = {}  # by identity, which is unique only as long as the storage is alive

    def keep(tensor: Tensor) -> None:
        """Put nothing in the graph: a tensor there that is a result of its own node would never be freed."""
        storage = tensor.untyped_storage()
        if id(storage) not in weights:
            kept[id(storage)] = storage

    device = next(model.parameters()).device
    token_ids = torch.zeros(batch_size, length, dtype=torch.int64, device=device)
    mask = torch.ones_like(token_ids)
    mask[:, -1] = 0  # padding takes the way that batches of different lengths take
    watched = torch.autograd.graph.saved_tensors_hooks(keep, lambda nothing: nothing)
    autocast = torch.autocast(device.type, dtype, enabled=dtype is not None)
    predicted = predicting(model, places)
    with _training(model), torch.random.fork_rng(), torch.enable_grad(), autocast, watched, predicted:
        # As in a stage that matches layers: otherwise a student's last layer computes the first token alone.
        inputs = {"input_ids": token_ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(token_ids)}
        output = model(**accepted_inputs(model, inputs), output_hidden_states=True)
    assert output.logits.requires_grad, "nothing of this model is trained"
    return sum(storage.nbytes() for storage in kept.values())


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.train()
    try:
        yield
    finally:
        model.train(was_training)


def count(model: nn.Module) -> tuple[int, int]:
    """Return the number of parameters, and of those that are trained."""
    parameters = list(model.parameters())
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def available_memory(device: torch.device, local_processes: int) -> int:
    """Return the bytes that one process may still take: of its GPU, or its share of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return available_host_memory() // local_processes


def available_host_memory(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the free bytes of this machine, or of the container that this process lives in."""
    free = psutil.virtual_memory().available
    for limit, used in LIMITS:
        try:
            left = int((groups / limit).read_text()) - int((groups / used).read_text())
        except (OSError, ValueError):  # no such file, or "max": no limit
            continue
        free = min(free, max(left, 0))
    return free


def run_disk(copies: int, phases: Iterable[DiskOfPhase], folder: Path) -> int:
    """Return the bytes that a run will still write into its folder at a time, teacher outputs aside.

    Args:
        copies: parameters of the models that no phase leaves where it trains them: the student at the end, and a
            teacher that was finished before.
        phases: in their order. The model of each stays; its checkpoints go when the phase ends.
        folder: what it holds already is not written again.
    """
    left, most = FLOAT * copies, 0
    for phase in phases:
        left += FLOAT * phase.parameters
        checkpoint = FLOAT * phase.parameters + ADAM * phase.trained
        most = max(most, left + phase.checkpoints * checkpoint + phase.epochs * FLOAT * phase.parameters)
    return max(0, most - folder_bytes(folder))


def folder_bytes(folder: Path) -> int:
    """Return what the files below a folder take, 0 if there is none."""
    paths = (Path(place) / name for place, _, names in os.walk(folder) for name in names)
    return sum(path.stat().st_size for path in paths if path.is_file())
