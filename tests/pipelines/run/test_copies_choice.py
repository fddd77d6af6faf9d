"""A run that chooses its copies: what it tries, takes and writes down, and how it goes on when killed."""

import io
import json
import shutil
from contextlib import redirect_stdout
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from distill.config.copies_choice import choice_file, read_choice
from distill.config.parsing import load_config as read_config
from distill.training.loop import StageTrainer
from distill.utils.interrupts import Interrupted
from pipelines.run import copies_choice, phases, stage_texts
from pipelines.run.api import UserError, distill, load_config
from pipelines.run.preflight import check_run
from pipelines.run.stage_texts import count_stage_texts
from students import StudentForSequenceClassification

KINDS = ["replace", "cut", "mix"]


class KilledError(Exception):
    """In place of a signal."""


@pytest.fixture(scope="module", autouse=True)
def no_accelerator():
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def asked(finished, tiny):
    """Return a function that configures the tiny run with its finished teacher and copies to be chosen."""

    def configure(run_dir, **overrides):
        given = {"teacher.checkpoint": str(finished.folder / "teacher"), "augmentation.choose": True}
        given |= {"augmentation.kinds": KINDS, "augmentation.copies": 2}
        given |= {"baseline.epochs": 0, "comparison.lengths": [], "run_dir": str(run_dir)}
        return load_config(tiny.config, given | overrides)

    return configure


def ends(*arguments, **keywords):
    raise KilledError


def pretended(divergences, notes=None):
    """Return trials that take no time, noting what the stages would read."""

    def try_stages(context, setup, stages, texts, folder):
        kind = folder.name
        if notes is not None:
            steps = [len(texts.examples) * stage.epochs for stage in stages]
            notes[kind] = (len(texts.examples), [stage.name for stage in stages], steps)
        return divergences[kind], 0.9

    return try_stages


@pytest.fixture(scope="module")
def chosen(asked, tmp_path_factory):
    """Run it to the end once, and return its folder and what it printed."""
    folder, said = tmp_path_factory.mktemp("copies") / "run", io.StringIO()
    with redirect_stdout(said):
        distill(asked(folder))
    return folder, said.getvalue()


def test_every_kind_is_tried_and_the_record_says_what_is_taken(chosen):
    folder, said = chosen
    found = read_choice(folder)
    assert [each.kind for each in found.tried] == ["none", *KINDS]
    assert all(each.divergence > 0 and 0 <= each.same_answers <= 1 for each in found.tried)
    assert found.tried[0].agreement > 0.5, "the teacher knows the texts themselves"
    assert "copies: 2 of kind cut" in said
    assert "Altered copies" in (folder / "report.md").read_text()
    record = json.loads((folder / "record.json").read_text())
    assert record["copies_choice"] == json.loads(choice_file(folder).read_text())
    kept = yaml.safe_load((folder / "config.yaml").read_text())["augmentation"]
    assert kept["choose"] is False
    assert (kept["copies"], kept["kinds"]) == ((2, found.chosen) if found.chosen else (0, KINDS))
    assert not [path for path in choice_file(folder).parent.iterdir() if path.is_dir()], "trials leave no weights"


def test_a_finished_run_is_finished_by_either_command(asked, chosen, capsys):
    folder, _ = chosen
    for config in (asked(folder), replace(read_config(folder / "config.yaml"), run_dir=str(folder))):
        distill(config)
        assert "is finished" in capsys.readouterr().out


def test_another_question_in_the_same_folder_is_refused(asked, chosen):
    with pytest.raises(UserError, match=r"augmentation\.(choose|kinds)"):
        distill(asked(chosen[0], **{"augmentation.kinds": ["mix", "cut"]}))


def test_all_kinds_are_read_for_as_many_steps(asked, tmp_path, monkeypatch):
    notes = {}
    trial = pretended({"none": 0.5, "replace": 0.4, "cut": 0.6, "mix": 0.3}, notes)
    monkeypatch.setattr(copies_choice, "try_stages", trial)
    monkeypatch.setattr(phases, "run_stages", ends)
    with pytest.raises(KilledError):
        distill(asked(tmp_path / "run"))
    rows = notes["none"][0]
    assert [notes[kind][0] for kind in KINDS] == [3 * rows] * 3
    for kind, note in notes.items():
        assert note[1] == [f"layers-{kind}", f"logits-{kind}"]
        assert note[2] == pytest.approx(notes["none"][2])
    saved = read_config(tmp_path / "run" / "config.yaml").augmentation
    assert (saved.copies, saved.kinds, saved.choose) == (2, ["mix", "replace"], False)


def test_where_no_kind_helps_there_are_no_copies_and_as_many_steps(asked, tmp_path, monkeypatch):
    config = asked(tmp_path / "run")
    monkeypatch.setattr(copies_choice, "try_stages", pretended(dict.fromkeys(["none", *KINDS], 0.5)))
    seen = {}

    def ended(context, setup):
        seen.update(copies=context.config.augmentation.copies, epochs=[stage.epochs for stage in setup.stages])
        raise KilledError

    monkeypatch.setattr(phases, "run_stages", ended)
    for _ in range(2):  # the second one goes on
        with pytest.raises(KilledError):
            distill(config)
        assert seen["copies"] == 0
        assert seen["epochs"] == [3 * stage.epochs for stage in config.stages]


def test_killed_it_goes_on_with_what_it_has_tried_and_ends_the_same(asked, chosen, tmp_path):
    config, tried = asked(tmp_path / "run"), []
    real = copies_choice.try_copies

    def stopped(context, setup, kind, choice):
        if kind == "cut":
            raise KilledError
        return real(context, setup, kind, choice)

    def noted(context, setup, kind, choice):
        tried.append(kind)
        return real(context, setup, kind, choice)

    for replacement, error in ((stopped, KilledError), (noted, None)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(copies_choice, "try_copies", replacement)
            if error is None:
                distill(config)
            else:
                with pytest.raises(error):
                    distill(config)
    assert tried == ["cut", "mix"]
    again, whole = read_choice(tmp_path / "run"), read_choice(chosen[0])
    assert [each.divergence for each in again.tried] == [each.divergence for each in whole.tried]
    own, theirs = (
        StudentForSequenceClassification.from_pretrained(each / "student").state_dict()
        for each in (tmp_path / "run", chosen[0])
    )
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)


def test_losses_that_are_not_finite_take_no_kind(asked, tmp_path, monkeypatch):
    def diverges(*arguments):
        raise copies_choice.DivergedError("the loss is not finite")

    monkeypatch.setattr(copies_choice, "try_stages", diverges)
    with pytest.raises(UserError, match="no student could be trained"):
        distill(asked(tmp_path / "run"))


def test_what_is_no_number_is_none(asked, tmp_path, monkeypatch):
    trial = pretended({"none": float("nan"), "replace": float("inf"), "cut": 0.5, "mix": float("nan")})
    monkeypatch.setattr(copies_choice, "try_stages", trial)
    monkeypatch.setattr(phases, "run_stages", ends)
    with pytest.raises(KilledError):
        distill(asked(tmp_path / "run"))
    found = read_choice(tmp_path / "run")
    assert [each.divergence for each in found.tried] == [None, None, 0.5, None]
    assert found.chosen == ["cut"]


def test_a_run_goes_on_as_if_a_trial_that_diverged_had_never_been(asked, tmp_path, monkeypatch):
    kinds = {"augmentation.kinds": ["cut"], "training.checkpoint_every": 2}
    take, steps, stop_at = StageTrainer.train_step, [], [None]

    def spoiled(trainer, indices):
        if trainer.stage.name.endswith("-cut"):
            raise copies_choice.DivergedError("the loss is not finite")
        steps.append(trainer.stage.name)
        if len(steps) == stop_at[0]:
            trainer.signals.received = 15
        take(trainer, indices)

    monkeypatch.setattr(StageTrainer, "train_step", spoiled)
    distill(asked(tmp_path / "whole", **kinds))
    first = next(place for place, name in enumerate(steps) if not name.endswith("-none"))
    steps.clear()
    stop_at[0] = first + 5
    with pytest.raises(Interrupted):
        distill(asked(tmp_path / "stopped", **kinds))
    kept = choice_file(tmp_path / "stopped").parent
    assert not [path for path in kept.iterdir() if path.is_dir()], "what a trial left is gone"
    stop_at[0] = None
    distill(asked(tmp_path / "stopped", **kinds))
    weights = [(tmp_path / each / "student" / "model.safetensors").read_bytes() for each in ("whole", "stopped")]
    assert weights[0] == weights[1]


def test_the_teacher_is_asked_about_copies_of_the_texts_whose_labels_count(asked, tmp_path, monkeypatch):
    texts, labels, real = {}, {}, copies_choice.logits_of

    def noted(run, model, examples):
        kind = ["none", *KINDS][len(texts)]
        texts[kind] = np.split(examples.token_ids, examples.offsets[1:-1])
        return real(run, model, examples)

    def scored(task, logits, wanted, threshold):
        labels[len(labels)] = wanted
        return {task.main_metric: 0.5}

    monkeypatch.setattr(copies_choice, "logits_of", noted)
    monkeypatch.setattr(copies_choice, "compute_metrics", scored)
    monkeypatch.setattr(copies_choice, "try_stages", pretended(dict.fromkeys(["none", *KINDS], 0.5)))
    monkeypatch.setattr(phases, "run_stages", ends)
    with pytest.raises(KilledError):
        distill(asked(tmp_path / "run"))
    for whole, replaced, cut in zip(texts["none"], texts["replace"], texts["cut"], strict=True):
        assert len(whole) == len(replaced)
        assert (whole == replaced).mean() >= 0.3, "most words stay"
        assert len(cut) < len(whole)
        assert set(cut) <= set(whole), "what is left of the same text"
    assert all(np.array_equal(labels[0], each) for each in labels.values())


def test_a_masked_language_model_is_read_where_it_is_asked_alone(asked, head, tmp_path, monkeypatch):
    loads, real = [], stage_texts.load_masked_lm
    monkeypatch.setattr(stage_texts, "load_masked_lm", lambda *how: loads.append(how) or real(*how))
    divergences = {"none": 0.5, "masked_lm": 0.6, "cut": 0.4}
    monkeypatch.setattr(copies_choice, "try_stages", pretended(divergences))
    kinds = {"augmentation.kinds": ["masked_lm", "cut"], "augmentation.masked_lm": str(head / "own")}
    distill(asked(tmp_path / "run", **kinds))
    assert len(loads) == 2, "once to see whether it fits, once for the copies that are tried"


def test_texts_without_labels_count_as_steps_too(asked, tmp_path, monkeypatch):
    (tmp_path / "more.txt").write_text("".join(f"a film of {number} reels\n" for number in range(500)))
    notes, seen = {}, {}
    trial = pretended(dict.fromkeys(["none", *KINDS], 0.5), notes)
    monkeypatch.setattr(copies_choice, "try_stages", trial)

    def ended(context, setup):
        rows = count_stage_texts(context, setup).rows
        seen.update(rows=rows, read=[rows * stage.epochs for stage in setup.stages])
        raise KilledError

    monkeypatch.setattr(phases, "run_stages", ended)
    config = asked(tmp_path / "run", **{"data.unlabelled": str(tmp_path / "more.txt")})
    with pytest.raises(KilledError):
        distill(config)
    own = seen["rows"] - 500
    assert notes["none"][0] == own + 500
    assert notes["mix"][0] == 3 * own + 500
    planned = [(3 * own + 500) * stage.epochs for stage in config.stages]
    assert seen["read"] == pytest.approx(planned)
    assert notes["none"][2] == pytest.approx(planned)


def test_a_choice_that_no_stage_reads_is_refused(asked, tmp_path, monkeypatch):
    monkeypatch.setattr(copies_choice, "stages_of_choice", lambda setup: ())
    with pytest.raises(UserError, match=r"augmentation\.choose: no stage of this run reads copies; leave it out"):
        distill(asked(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_the_plan_has_the_trials(asked, tmp_path, capsys):
    assert check_run(asked(tmp_path / "run")) == 0
    said = capsys.readouterr().out
    assert "layers-none" in said
    assert "logits-mix" in said


@pytest.fixture(scope="module")
def head(finished, tmp_path_factory):
    """A masked language model of the student's tokens, and one of others."""
    folder, tokenizer = tmp_path_factory.mktemp("head"), AutoTokenizer.from_pretrained(finished.folder / "teacher")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(folder / "own")
    tokenizer.save_pretrained(folder / "own")
    for name, change in {"short": {"max_position_embeddings": 8}, "small": {"vocab_size": 20}}.items():
        BertForMaskedLM(BertConfig(**{"vocab_size": len(tokenizer)} | sizes | change)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    other = tokenizer.train_new_from_iterator(["quite other words than those"], 60)
    BertForMaskedLM(BertConfig(vocab_size=len(other), **sizes)).save_pretrained(folder / "other")
    other.save_pretrained(folder / "other")
    return folder


def test_a_masked_language_model_of_another_folder_makes_copies(asked, head, tmp_path):
    own = {"augmentation.kinds": ["masked_lm"], "augmentation.copies": 1, "augmentation.choose": False}
    distill(asked(tmp_path / "run", **own, **{"augmentation.masked_lm": str(head / "own")}))
    assert (tmp_path / "run" / "record.json").exists()


@pytest.mark.parametrize(
    ("named", "reason"),
    [
        ("other", "reads other tokens than the student"),
        ("absent", r"augmentation\.masked_lm"),
        ("short", "reads 8 tokens, and texts have up to"),
        ("small", "has 20 words for"),
    ],
)
def test_a_masked_language_model_that_does_not_fit_is_refused_before_training(
    asked, head, tmp_path, capsys, named, reason
):
    more = {"augmentation.kinds": ["mix", "cut", "masked_lm"], "augmentation.masked_lm": str(head / named)}
    config = asked(tmp_path / "run", **more)
    with pytest.raises(UserError, match=reason):
        distill(config)
    assert not (tmp_path / "run").exists()


def test_other_weights_of_that_model_are_noticed(asked, head, tmp_path, monkeypatch):
    named = tmp_path / "head"
    shutil.copytree(head / "own", named)
    own = {"augmentation.kinds": ["masked_lm"], "augmentation.copies": 1, "augmentation.choose": False}
    config = asked(tmp_path / "run", **own, **{"augmentation.masked_lm": str(named)})
    monkeypatch.setattr(phases, "run_stages", ends)
    with pytest.raises(KilledError):
        distill(config)
    weights = load_file(named / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, named / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"augmentation\.masked_lm: no longer what run folder"):
        distill(config)


def test_a_model_that_makes_no_copies_is_said_to_have_no_effect(asked, head, tmp_path, capsys):
    assert check_run(asked(tmp_path / "run", **{"augmentation.masked_lm": str(head / "own")})) == 0
    assert "has no effect: augmentation.kinds lack masked_lm" in capsys.readouterr().out
