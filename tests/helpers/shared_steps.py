"""Take a few optimizer steps that several processes share, and leave how far they led: a script, see ``CASES``.

Started as our commands are, on any number of processes: ``--config FILE --run_dir FOLDER CASE``. Plain descent, since
Adam's steps are as long whatever the gradient is multiplied by.
"""

import copy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from helpers.tiny_bert import tiny_bert
from helpers.tiny_teachers import tiny_teacher

from distill.config.schema import Config, StageConfig, TrainingConfig
from distill.data.splits import Examples
from distill.data.tokenization import tokenize, train_tokenizer
from distill.models.inputs import reading_of
from distill.objectives.capture_plan import CapturePlan, plan_across_encoders
from distill.tasks import MULTI_LABEL, custom_task, get_task
from distill.training.accelerator import end_training, make_accelerator
from distill.training.context import StageInputs, TrainingContext
from distill.training.loss_meter import LossMeter
from distill.training.stepper import Stepper
from students import student_from_teacher
from teachers.any_classifier import load_any_teacher
from teachers.loading import freeze
from teachers.outputs import OnlineTeacherOutputs

WORDS = ("fine", "dull", "bright", "weak", "film", "plot")
TEXTS = [" ".join(WORDS[(i * i + j) % 6] for j in range(1 + i % 5)) for i in range(30)]
CLASSES = np.arange(30) % 5 // 3
"""Three of five texts have class 0."""
CLASSES[[2, 7, 8]] = -1
LABEL_SETS = (np.arange(30)[:, None] % np.array([2, 3, 5]) == 0).astype(np.float32)
SETS = custom_task(("text",), "tags", ("a", "b", "c"), False, multi_label=True)
CASES = {
    "class weights": (CLASSES, {"labels": 1.0}, np.array([0.3, 4.0], np.float32), 0.2),
    "another tokenizer": (CLASSES, {"hidden_states": 1.0, "logits": 0.5, "labels": 0.5}, None, 0.0),
    "label sets in another tokenizer": (LABEL_SETS, {"hidden_states": 1.0, "logits": 0.5, "labels": 0.5}, None, 0.0),
}
"""Labels, losses, class weights and label smoothing."""
BATCHES = (np.arange(11), np.arange(11, 24), np.array([24]), np.arange(25, 30))
"""Of sizes that no number of processes divides, one smaller than that number."""


def main() -> None:
    """Take the steps; the main process saves how far each weight moved, those of the maps too, and the losses."""
    folder, case = Path(sys.argv[4]), sys.argv[5]
    labels, losses, weights, smoothing = CASES[case]
    training = TrainingConfig(max_gradient_norm=1e9, weight_decay=0.0, label_smoothing=smoothing, mixed_precision="no")
    accelerator = make_accelerator(Config("sst2", training=training, run_dir=str(folder), trackers=[]))
    torch.optim.AdamW = lambda groups, fused: torch.optim.SGD(groups)
    stage = StageConfig("steps", 1, 0.05, losses, train="all")
    tokenizer, examples = train_tokenizer(TEXTS, 40), Examples(np.arange(30), [(text,) for text in TEXTS], labels)
    count = labels.shape[1] if labels.ndim == 2 else 2
    bert = tiny_bert(vocab_size=len(tokenizer), num_labels=count, initializer_range=0.2)
    student = student_from_teacher(bert, layer_map=[0, 1], attention="softmax")[0].eval()
    plan, outputs = CapturePlan(), None
    if "logits" in losses:
        kind = {"problem_type": MULTI_LABEL} if labels.ndim == 2 else {}
        if accelerator.is_main_process:
            tiny_teacher("xlnet", TEXTS, folder / "teacher", num_labels=count, **kind)
        accelerator.wait_for_everyone()
        teacher = load_any_teacher(str(folder / "teacher"), SETS if labels.ndim == 2 else get_task("sst2"))
        freeze(teacher.model)
        read = tokenize(examples, teacher.tokenizer, 32, **reading_of(teacher.model, teacher.tokenizer))
        plan = plan_across_encoders(stage, 2, [0, 2])
        outputs = OnlineTeacherOutputs(teacher.model, plan, examples=read)
    inputs = StageInputs(tokenize(examples, tokenizer, 32), plan, outputs)
    context = TrainingContext(accelerator, training, seed=1, class_weights=weights)
    stepper = Stepper(context, student, stage, inputs)
    start = copy.deepcopy(accelerator.unwrap_model(stepper.wrapped).state_dict())
    meter, sums = LossMeter(accelerator, stage.name, losses), []
    for indices in BATCHES:
        stepper.take_step(indices, stage, meter)
        sums.append(meter.collect(len(sums)))
    if accelerator.is_main_process:
        end = accelerator.unwrap_model(stepper.wrapped).state_dict()
        moved = {name: end[name] - tensor for name, tensor in start.items() if tensor.is_floating_point()}
        torch.save((moved, sums), folder / "end.pt")
    end_training(accelerator)


if __name__ == "__main__":
    main()
