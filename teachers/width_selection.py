"""Which hidden dimensions, heads and feed-forward units a model's decisions need most, and what they say of the rest.

Two passes over some train texts. The first finds how much every unit moves the loss, to first order: gradient times
activation, summed over a text's tokens, as https://arxiv.org/abs/1905.10650 has it for heads. The second finds what is
left out as a linear function of what is kept, by least squares, for the next matrix to take in.

Legend: B texts, N tokens, n of them that are real.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.data.batching import TokenizedExamples, collate, sorted_batches
from distill.objectives.linear_maps import Moments
from distill.objectives.losses import labels_loss
from distill.utils.progress import progress_bar
from students.narrowing import EMBEDDINGS, LAYER, Kept, Rebuilt, Sizes, channels_of

NUM_TEXTS, NUM_TOKENS, BATCH_SIZE = 1024, 16_384, 32
"""Texts and tokens that are read, at most: about a minute of one core for six layers of 384."""
POOLER, CLASSIFIER = "bert.pooler.dense", "classifier"
EPSILON = 1e-9
CONTEXT, UNITS = "attention.output.dense", "output.dense"


def select_width(model: Any, layers: Sequence[int], sizes: Sizes, examples: TokenizedExamples, seed: int) -> Kept:
    """Return what a narrower student of some layers of a model keeps.

    Directions are shared by all layers, over whose hidden states they are counted; heads and units are chosen within
    their layer.

    Args:
        model: a softmax student, in eval mode and left as it was, whose decisions are good.
        layers: one for each of the student's.
        sizes: of the student.
        examples: of train.
        seed: chooses the texts that are read.
    """
    texts = choose_texts(examples, seed)
    moved, spread = measure_importance(model, examples, texts)
    head_size = model.config.size_of_head
    heads = [moved[f"{LAYER}{layer}.{CONTEXT}"].unflatten(0, (-1, head_size)).sum(1) for layer in layers]
    units = [moved[f"{LAYER}{layer}.{UNITS}"] for layer in layers]
    kept = Kept(
        hidden=principal_directions(spread, sizes.hidden_size),
        pooled=highest(moved[CLASSIFIER], sizes.hidden_size),
        heads=[highest(*each) for each in zip(heads, sizes.num_heads, strict=True)],
        units=[highest(*each) for each in zip(units, sizes.intermediate_size, strict=True)],
    )
    rebuilt, norms = measure_rest(model, layers, kept, examples, texts)
    return replace(kept, rebuilt=rebuilt, norms=norms)


def highest(scores: Tensor, count: int) -> Tensor:
    """Return the places of the highest scores, in ascending order; of equal ones the first are taken."""
    return scores.argsort(descending=True, stable=True)[:count].sort().values.cpu()


def principal_directions(spread: Tensor, count: int) -> Tensor:
    """Return directions (count, D) in which states of a covariance (D, D) are kept, in coordinates whose mean is 0.

    A LayerNorm takes off the mean over the dimensions: the directions are principal beside it, one less than there are
    wanted, and turned on one more dimension, so that the mean of the new ones is none of what is kept either. Where
    all are wanted they are the dimensions.
    """
    if count == len(spread):
        return torch.eye(count)
    spread = spread.cpu() - spread.mean(0).cpu()
    spread = spread - spread.mean(1, keepdim=True)
    principal = torch.linalg.eigh(spread)[1].flip(1)[:, : count - 1]
    drawn = torch.randn(count, count - 1, generator=torch.Generator().manual_seed(0), dtype=spread.dtype)
    turned = torch.linalg.qr(torch.cat([torch.ones(count, 1, dtype=spread.dtype), drawn], dim=1))[0][:, 1:]
    return (turned @ principal.T).float()


def choose_texts(examples: TokenizedExamples, seed: int) -> np.ndarray:
    """Return the rows of at most `NUM_TEXTS` texts, and of no more than `NUM_TOKENS` tokens, but at least of one."""
    order = np.random.default_rng(seed).permutation(len(examples))[:NUM_TEXTS]
    return order[: max(1, int((examples.lengths[order].cumsum() <= NUM_TOKENS).sum()))]


def measure_importance(model: Any, examples: TokenizedExamples, texts: np.ndarray) -> tuple[dict[str, Tensor], Tensor]:
    """Return how much every unit moves the loss of the labels, |sum over tokens of gradient x activation|, all texts.

    What is always the same is no loss, since the next matrix can take it in: activations are those around their mean.

    Returns:
        Of what the linear layers read that follow heads, units and the pooler, by their names: one number for every
        dimension; and the covariance (D, D) of the hidden states.
    """
    moved: dict[str, Tensor] = {}
    size = model.config.hidden_size
    spreads = torch.zeros(2, size, size, dtype=torch.float64, device=model.device)
    is_real: list[Tensor] = []

    def watch(name: str, states: Tensor) -> None:
        def add(gradient: Tensor) -> None:
            products = (gradient * deviation(states.detach(), is_real[-1])).double()
            products = products.sum(1) if products.dim() == 3 else products
            moved[name] = moved.get(name, 0) + products.abs().sum(0)

        states.register_hook(add)

    def spread(before: Tensor, after: Tensor) -> None:
        for index, states in enumerate((before, after)):
            rows = real_rows(deviation(states, is_real[-1]), is_real[-1])
            spreads[index] += (rows.T @ rows).double()

    with watching(model, watch, spread), torch.enable_grad():
        for inputs, labels in read(model, examples, texts, "importance of units"):
            is_real.append(inputs["attention_mask"].bool())
            labels_loss(model(**inputs).logits, labels).sum().backward()
    traces = spreads.diagonal(dim1=1, dim2=2).sum(1).clamp(min=EPSILON)
    return moved, (spreads / traces[:, None, None]).sum(0)


def deviation(states: Tensor, is_real: Tensor) -> Tensor:
    """Return states, (B, N, D), (B, 1, D) or (B, D), less their mean over the real tokens of the batch."""
    return states - real_rows(states, is_real).mean(0)


def real_rows(states: Tensor, is_real: Tensor) -> Tensor:
    """Return the real tokens (n, D) of states (B, N, D), or all rows of (B, 1, D) or (B, D)."""
    alone = states.dim() == 2 or states.shape[1] != is_real.shape[1]
    return states.flatten(0, -2) if alone else states[is_real]


@contextmanager
def watching(
    model: Any, watch: Callable[[str, Tensor], None], spread: Callable[[Tensor, Tensor], None]
) -> Iterator[None]:
    """Show activations, of which gradients can be had, while the block runs; no weight gets one.

    Args:
        watch: is shown what some linear layers read, with their names.
        spread: is shown the hidden states before and after every LayerNorm.
    """
    trained = [parameter.requires_grad for parameter in model.parameters()]
    model.requires_grad_(False)

    def start(module: nn.Module, inputs: Any, output: Tensor) -> None:
        output.requires_grad_()

    def show_norm(module: nn.Module, inputs: Any, output: Tensor) -> None:
        spread(inputs[0].detach(), output.detach())

    def show_input(name: str) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: watch(name, inputs[0])

    blocks = [part for layer in model.bert.encoder.layer for part in (layer.attention.output, layer.output)]
    handles = [model.bert.embeddings.register_forward_hook(start)]
    norms = blocks if model.config.embedding_size is not None else [model.bert.embeddings, *blocks]
    handles += [block.LayerNorm.register_forward_hook(show_norm) for block in norms]
    names = [f"{LAYER}{layer}.{part}" for layer in range(len(blocks) // 2) for part in (CONTEXT, UNITS)]
    for name in (*names, CLASSIFIER):
        handles.append(model.get_submodule(name).register_forward_pre_hook(show_input(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for parameter, wanted in zip(model.parameters(), trained, strict=True):
            parameter.requires_grad_(wanted)


@torch.no_grad()
def measure_rest(
    model: Any, layers: Sequence[int], kept: Kept, examples: TokenizedExamples, texts: np.ndarray
) -> tuple[dict[str, Rebuilt], dict[str, tuple[Tensor, Tensor]]]:
    """Return what every linear layer reads as a function of what is kept of it, and how LayerNorms go on.

    Returns:
        By the names of the modules, what :class:`Kept` calls ``rebuilt`` and ``norms``.
    """
    columns, norms = {POOLER: kept.hidden, CLASSIFIER: kept.pooled}, [f"{EMBEDDINGS}LayerNorm"]
    turns = len(kept.hidden) < model.config.hidden_size
    hidden = kept.hidden.to(model.device)
    for index, layer in enumerate(layers):
        name = f"{LAYER}{layer}."
        columns[f"{name}attention.self.query"] = columns[f"{name}intermediate.dense"] = kept.hidden
        columns[name + CONTEXT] = channels_of(kept.heads[index], model.config.size_of_head)
        columns[name + UNITS] = kept.units[index]
        norms += [f"{name}attention.output.LayerNorm", f"{name}output.LayerNorm"]
    if model.config.embedding_size is not None:
        norms = norms[1:]  # of the embeddings' own width, which stays
    if not turns:
        norms, columns = [], {name: each for name, each in columns.items() if each.dim() == 1}
    moments, scales = {name: Moments() for name in columns}, {name: Scales() for name in norms}
    is_real: list[Tensor] = []

    def rows(states: Tensor) -> Tensor:
        return states[is_real[-1]] if states.dim() == 3 else states

    def add_read(name: str) -> Callable[[nn.Module, Any], None]:
        def add(module: nn.Module, inputs: Any) -> None:
            states = rows(inputs[0])
            moments[name].add(states @ hidden.T if columns[name].dim() == 2 else states, states)

        return add

    def add_norm(name: str) -> Callable[[Any, Any, Tensor], None]:
        def add(module: Any, inputs: Any, output: Tensor) -> None:
            fewer = rows(inputs[0]) @ hidden.T
            scales[name].add(F.layer_norm(fewer, fewer.shape[-1:], eps=module.eps), rows(output) @ hidden.T)

        return add

    handles = [model.get_submodule(name).register_forward_pre_hook(add_read(name)) for name in columns]
    handles += [model.get_submodule(name).register_forward_hook(add_norm(name)) for name in norms]
    try:
        for inputs, _ in read(model, examples, texts, "what is kept of the rest"):
            is_real.append(inputs["attention_mask"].bool())
            model(**inputs, output_hidden_states=True)  # all tokens of the last layer, not the first alone
    finally:
        for handle in handles:
            handle.remove()
    rebuilt = {name: rebuild(each, columns[name]) for name, each in moments.items()}
    for layer in layers if turns else ():
        own = f"{LAYER}{layer}.attention.self."
        rebuilt |= {f"{own}{name}": rebuilt[f"{own}query"] for name in ("key", "value")}
    return rebuilt, {name: each.fit() for name, each in scales.items()}


def rebuild(moments: Moments, kept: Tensor) -> Rebuilt:
    """Return what all of some states are: units that are kept as they are, and the rest by regression on them.

    Args:
        moments: of the states, or of what is kept of them in some directions, and of the states.
        kept: indices of units, or directions.
    """
    weight, bias = (each.cpu() for each in moments.regression(kept if kept.dim() == 1 else None))
    if kept.dim() == 2:
        return Rebuilt(weight, bias)
    weight[kept], bias[kept] = torch.eye(len(kept)), 0.0
    return Rebuilt(weight, bias)


class Scales:
    """Sums over pairs of states (n, S), of which the best gain and shift of every dimension follow."""

    def __init__(self) -> None:
        self._sums = torch.zeros(())

    def add(self, states: Tensor, targets: Tensor) -> None:
        """Count states, and the targets that they should be."""
        terms = torch.ones_like(states), states, targets, states.square(), states * targets
        self._sums = self._sums.to(states.device) + torch.stack([each.double().sum(0) for each in terms])

    def fit(self) -> tuple[Tensor, Tensor]:
        """Return gain and shift (S,) with gain x states + shift nearest to the targets."""
        count, states, targets, squares, products = self._sums
        gain = (products - states * targets / count) / (squares - states.square() / count).clamp(min=EPSILON)
        return gain.float().cpu(), ((targets - gain * states) / count).float().cpu()


def read(
    model: Any, examples: TokenizedExamples, texts: np.ndarray, what: str
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yield inputs and labels of the texts in batches, with a progress bar."""
    batches = sorted_batches(examples.lengths[texts], BATCH_SIZE)
    for places in progress_bar(batches, name=what, unit="batch", leave=False):
        yield collate(examples, texts[places], model.device)
