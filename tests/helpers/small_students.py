"""A small student, a batch for it, and a process in which this repository does not exist."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from students import StudentConfig, StudentForSequenceClassification

SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 24,
    # Ordinary initialisation leaves tiny models almost constant.
    "initializer_range": 0.3,
}


def student(**options: Any) -> StudentForSequenceClassification:
    """Return a student of two layers, in eval mode; the same options give the same weights."""
    torch.manual_seed(0)
    return StudentForSequenceClassification(StudentConfig(**SIZES | options)).eval()


def batch(batch_size: int = 3, length: int = 10) -> dict[str, Tensor]:
    """Return up to three examples, of which the second and third end in padding."""
    random = torch.Generator().manual_seed(0)
    input_ids = torch.randint(1, 60, (batch_size, length), generator=random)
    attention_mask = (torch.arange(length) < torch.tensor([length, 4, 7])[:batch_size, None]).long()
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": input_ids % 2}


def run_elsewhere(program: str, inputs: dict[str, Tensor], folder: Path, *arguments: str) -> Any:
    """Run a program in a fresh process that cannot import this repository; return the JSON in its last line.

    Args:
        inputs: given to the program as JSON, on stdin.
        folder: where it runs, and where transformers may keep the code of checkpoints.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(folder / "modules"), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        input=json.dumps({name: tensor.tolist() for name, tensor in inputs.items()}),
        capture_output=True,
        cwd=folder,
        env=environment,
        text=True,
        timeout=240,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


LOGITS = """
import json, sys, torch
from pathlib import Path
from transformers import AutoModelForSequenceClassification
batch = {name: torch.tensor(rows) for name, rows in json.load(sys.stdin).items()}
logits = {}
for folder in Path(sys.argv[1]).iterdir():
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    logits[folder.name] = model(**batch).logits.tolist()
assert "students" not in sys.modules
print(json.dumps(logits))
"""


def logits_elsewhere(inputs: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Return the logits of every checkpoint in ``folder/students``, by its name, loaded with its own code alone."""
    logits = run_elsewhere(LOGITS, inputs, folder, str(folder / "students"))
    return {name: torch.tensor(values) for name, values in logits.items()}
