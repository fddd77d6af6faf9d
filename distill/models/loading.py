"""Any two sequence classifiers to compare: load them, and refuse a pair that no number could compare."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from distill.data.tokenization import PROBES, is_empty
from distill.models.checkpoints import CALLS, WRAPPERS, check_size, check_token_types, folder_problem, weights_problem
from distill.models.labels import settle_labels
from distill.models.own_memory import in_own_memory
from distill.models.positions import find_positions
from distill.models.windowed_bert import ReadsWindows, reading_windows
from distill.tasks import Task
from distill.utils.errors import UserError, loading_problem
from students.families import OURS

TEACHER = "teacher"
"""The role that may read long texts in windows."""


@dataclass(frozen=True)
class Classifier:
    """A finished model in eval mode, its tokenizer, and the role that messages call it by."""

    role: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def check_checkpoint(folder: Path | str, role: str) -> None:
    """Refuse a folder that is not there, or holds no checkpoint; UserError names the role that it was given for."""
    folder = Path(folder)
    who = f"--{role} {folder}"
    if problem := folder_problem(folder, role):
        raise UserError(f"{who} {problem}")
    if not (folder / "config.json").is_file():
        problem = "is no checkpoint: it has no config.json" if folder.is_dir() else "does not exist"
        raise UserError(f"{who} {problem}; give the folder of a saved model")


def load_classifier(folder: Path | str, role: str, *, trust_remote_code: bool = False) -> Classifier:
    """Load a fine-tuned sequence classifier and its tokenizer from ``folder``; nothing is fetched.

    Raises:
        UserError: no such folder, not a checkpoint, torn, without a trained head, or with code nobody trusted.
    """
    folder = Path(folder)
    who = f"--{role} {folder}"
    check_checkpoint(folder, role)
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
        check_size(config, folder, who)
        if any(name.endswith(("ForCausalLM", "ForMaskedLM")) for name in config.architectures or ()):
            raise UserError(f"{who} is a language model; give a fine-tuned classifier")
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            key_mapping=WRAPPERS,
            **CALLS,
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except UserError:
        raise
    except Exception as error:
        # A damaged file makes transformers fail in any way there is.
        problem = loading_problem(error)
        way_out = "read that code, then pass --trust-remote-code" if "code of its own" in problem else "save it again"
        raise UserError(f"{who} cannot be loaded: {problem}; {way_out}") from error
    if fault := weights_problem(model, info):
        raise UserError(f"{who} {fault}")
    if info["missing_keys"] or info["mismatched_keys"]:
        missing = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
        raise UserError(
            f"{who} is torn or not fine-tuned: {len(missing)} weights such as {missing[0]} are missing or "
            "of another size; save it again"
        )
    if is_empty(tokenizer):
        raise UserError(f"{who} has no tokenizer; put the tokenizer it was trained with beside the weights")
    model = in_own_memory(model)
    return Classifier(role, (reading_windows(model) if role == TEACHER else model).eval(), tokenizer)


def load_for_task(folder: Path | str, role: str, task: Task, *, trust_remote_code: bool = False) -> Classifier:
    """Load a classifier whose outputs are a task's, in its order; what had to be put in order is said on stderr.

    Raises:
        UserError: as :func:`load_classifier`, or its labels are of another set than the task's; their number is for
            `distill.evaluation.comparison.check_comparable`.
    """
    loaded = load_classifier(folder, role, trust_remote_code=trust_remote_code)
    config, who = loaded.model.config, f"--{role} {folder}"
    without = role == TEACHER or config.model_type in OURS
    check_token_types(config, loaded.tokenizer, who, pairs=len(task.text_columns) > 1, called_without=without)
    if config.num_labels == task.num_labels and (note := settle_labels(loaded.model, task, who)):
        print(note, file=sys.stderr)
    return loaded


def load_comparable(
    folders: Mapping[str, str | None], task: Task, *, trust_remote_code: bool = False
) -> dict[str, Classifier]:
    """Load the models of all roles that have a folder for a task; all but the teacher must read the same tokens.

    Raises:
        UserError: as :func:`load_classifier`, or names the two roles whose tokenizers differ.
    """
    loaded = {
        role: load_for_task(folder, role, task, trust_remote_code=trust_remote_code)
        for role, folder in folders.items()
        if folder is not None
    }
    first, *others = (classifier for role, classifier in loaded.items() if role != TEACHER)
    for other in others:
        if not same_tokenizer(first.tokenizer, other.tokenizer):
            raise UserError(
                f"--{first.role} and --{other.role} have different tokenizers ({len(first.tokenizer):,} and "
                f"{len(other.tokenizer):,} entries); compare models that read the same tokens"
            )
    return loaded


def check_max_length(loaded: Mapping[str, Classifier], max_length: int, *, pairs: bool) -> None:
    """Refuse a length in tokens that one of the models has no positions for; UserError names the model.

    A teacher whose layers are BERT's reads longer texts in windows, of single texts.
    """
    for role, classifier in loaded.items():
        if isinstance(classifier.model, ReadsWindows) and not pairs:
            continue
        positions = find_positions(classifier.model)
        if positions is not None and max_length > positions:
            raise UserError(
                f"--data.max_length {max_length}: --{role} has {positions} positions; give at most that many"
            )


def same_tokenizer(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> bool:
    """Tell whether two tokenizers are one: as many entries, and the same tokens of texts of several scripts."""
    return len(first) == len(second) and all(first(text)["input_ids"] == second(text)["input_ids"] for text in PROBES)


def check_device(device: str) -> None:
    """Refuse a device that this machine does not have."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU is visible here; leave --device out")
