"""Checkpoints inside a stage: written aside, checked when read, a torn one skipped."""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.logging import get_logger
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.serialization import safe_globals

from distill.training.accelerator import uses_deepspeed
from distill.utils.errors import UserError, loading_problem, storage_problem
from distill.utils.files import (
    UNFINISHED,
    checksums,
    read_json,
    remove,
    replace_directory,
    replace_file,
    write_atomically,
)

logger = get_logger(__name__)

KEPT = 2
"""Checkpoints kept of a stage: the newest, and the one before in case the newest is torn."""
MANIFEST = "manifest.json"


def write_manifest(folder: Path) -> None:
    """Record the checksum of every file in ``folder``; a folder without a manifest is not whole."""
    write_atomically(folder / MANIFEST, json.dumps(_contents(folder), indent=1))


def is_whole(folder: Path) -> bool:
    """Tell whether ``folder`` has a manifest and every file still is what the manifest says."""
    try:
        manifest = read_json(folder / MANIFEST)
    except (OSError, ValueError):
        return False
    return manifest == _contents(folder)


def _contents(folder: Path) -> dict[str, str]:
    return {name: digest for name, digest in checksums(folder).items() if name != MANIFEST}


def save_checkpoint(accelerator: Accelerator, folder: Path, state: dict[str, Any]) -> None:
    """Write model, optimizer, RNGs and ``state`` of the running stage to ``folder/step-<n>``.

    Every process must call this: each one saves its own random state, DeepSpeed its own shard.
    """
    temporary = folder / f"checkpoint{UNFINISHED}"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_atomically(temporary / "state.json", json.dumps(state))
        write_manifest(temporary)
        replace_directory(temporary, folder / f"step-{state['global_step']:08d}")
        for old in sorted(folder.glob("step-*"))[:-KEPT]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def remove_checkpoints(folder: Path) -> None:
    """Remove what only resuming a stage needs, once it is finished."""
    for path in folder.iterdir():
        if path.name.startswith(("step-", "best-epoch-", "epoch-", "checkpoint")):
            remove(path)


def load_checkpoint(
    accelerator: Accelerator, folder: Path, state_problem: Callable[[Any], str | None] = lambda _: None
) -> dict[str, Any] | None:
    """Load the newest whole checkpoint of a stage into the prepared objects and return its state, or None.

    Args:
        state_problem: says what of a state nobody could go on from, None where all is well.

    Raises:
        UserError: it is whole but of another model or optimizer, as an older version of this code may have written it,
            or it holds more than tensors.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        state, problem = _read_state(path, state_problem)
        if problem is None:
            try:
                with safe_globals(classes_in_shards() if uses_deepspeed(accelerator) else []):
                    accelerator.load_state(str(path))
            except Exception as error:  # torch, accelerate and DeepSpeed have each their own ways to fail
                if storage_problem(error):
                    raise
                raise UserError(
                    f"checkpoint {path} does not fit this run ({loading_problem(error)}); was it written by another "
                    f"version of this code? Remove {folder} and the stage starts over"
                ) from error
            return state
        logger.warning(f"checkpoint {path} is torn{problem}; trying the one before")
    return None


def _read_state(path: Path, state_problem: Callable[[Any], str | None]) -> tuple[dict[str, Any], str | None]:
    """Return the state in a checkpoint, and what makes the checkpoint useless, None where nothing does."""
    if not is_whole(path):
        return {}, ""
    try:
        state = read_json(path / "state.json")
    except (OSError, ValueError):
        return {}, ": its state.json is no JSON"
    problem = state_problem(state) if isinstance(state, dict) else f"it holds a {type(state).__name__}"
    return state, None if problem is None else f", or of another version: in its state.json {problem}"


def classes_in_shards() -> list[Any]:
    """Return what DeepSpeed's shards of a checkpoint hold beside tensors, none of which does anything when it is read.

    torch refuses every class that it was not told of, because a pickle runs what it asks for.
    """
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


def best_path(folder: Path, epoch: int) -> Path:
    """Return where the weights of a best epoch lie."""
    return folder / f"best-epoch-{epoch}.safetensors"


def keep_best(weights: Mapping[str, Tensor], folder: Path, epoch: int) -> None:
    """Save the weights of the best epoch so far, and remove those that no checkpoint goes back to."""
    save_weights(weights, best_path(folder, epoch))
    needed = {best_path(folder, epoch)}
    for path in folder.glob("step-*/state.json"):
        with suppress(OSError, ValueError, KeyError, TypeError):  # torn, so that nobody goes back to it
            needed.add(best_path(folder, read_json(path)["best_epoch"]))
    for path in set(folder.glob("best-epoch-*")) - needed:
        path.unlink()


def keep_epoch(weights: Mapping[str, Tensor], folder: Path, epoch: int, kept: int) -> None:
    """Save the weights of an epoch, and remove those of the one that no longer is among the ``kept`` last."""
    save_weights(weights, _epoch_path(folder, epoch))
    _epoch_path(folder, epoch - kept).unlink(missing_ok=True)


def mean_of_epochs(folder: Path, num_epochs: int, kept: int) -> dict[str, Tensor]:
    """Return the mean of the weights of the ``kept`` last of ``num_epochs`` epochs, or of all if they are fewer."""
    last, *others = [
        load_weights(_epoch_path(folder, epoch)) for epoch in reversed(range(max(0, num_epochs - kept), num_epochs))
    ]
    for name, tensor in last.items():
        if tensor.is_floating_point():  # buffers such as a plan of blocks are the same in all
            total = tensor.double() + sum(other[name].double() for other in others)
            last[name] = (total / (1 + len(others))).to(tensor.dtype)
    return last


def _epoch_path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch}.safetensors"


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of an epoch; UserError if they are torn or gone, which says how the stage is trained again."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = "torn" if path.exists() else "missing"
        raise UserError(
            f"{path} is {reason}; remove {path.parent} and start the same command again to train this stage anew"
        ) from error


def separately(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of a model no two of which are one, as the matrices of a language model's words are."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in weights.items():
        found[name] = tensor.clone() if tensor.data_ptr() in seen else tensor.contiguous()
        seen.add(tensor.data_ptr())
    return found


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a model's weights so that a reader sees all of them or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(UNFINISHED)
    save_file(separately(weights), temporary)
    replace_file(temporary, path)
