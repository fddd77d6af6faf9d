"""A run that finds a mechanism for every layer: what it tries, takes, writes down, and how it goes on when killed."""

import io
import json
import re
from contextlib import redirect_stdout
from dataclasses import replace

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState

from distill.benchmark.timing import PointError
from distill.config.attention_fit import AttentionFit, TriedAttention, fit_file, read_fit
from distill.config.parsing import load_config as read_config
from distill.utils.record_json import to_json
from pipelines.run import attention_fit, phases
from pipelines.run.api import UserError, distill, load_config
from pipelines.run.attention_fit import STEPS
from pipelines.run.preflight import check_run
from students import StudentForSequenceClassification

TRIED = ["linear", "abc", "softmax"]
CHOSEN = ["linear", "abc"]
SPEEDS = {"linear": (2.0, 1.9, 2.1), "abc": (1.5, 1.4, 1.6), "softmax": (1.0, 0.9, 1.1), "performer": (1.2, 1.1, 1.3)}

MEASURED = attention_fit.speed_over_softmax


class KilledError(Exception):
    """In place of a signal."""


@pytest.fixture(scope="module", autouse=True)
def spoiled():
    """Let `linear` fail in the second block, and speeds be what is written here.

    Tiny blocks attend so evenly that any mechanism copies them, and their times are noise.
    """
    real = attention_fit.block_fidelity

    def block_fidelity(source, student, layer_map, examples):
        first, second = real(source, student, layer_map, examples)
        return [first, 0.5] if student.config.attention == "linear" else [first, second]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_fit, "block_fidelity", block_fidelity)
        patch.setattr(attention_fit, "speed_over_softmax", lambda context, setup, name, length: SPEEDS[name])
        yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def asked(finished, tiny):
    """Return a function that configures the tiny run with its finished teacher and mechanisms to be found."""

    def configure(run_dir, **overrides):
        given = {"teacher.checkpoint": str(finished.folder / "teacher"), "student.attention": "fit"}
        given |= {"student.fit_attentions": TRIED, "student.fit_fidelity": 0.9, "student.num_layers": 2}
        given |= {"baseline.epochs": 0, "comparison.lengths": [], "run_dir": str(run_dir)}
        return load_config(tiny.config, given | overrides)

    return configure


@pytest.fixture(scope="module")
def fitted(asked, tmp_path_factory):
    """Run it to the end once, and return its folder and what it printed."""
    folder, said = tmp_path_factory.mktemp("fit") / "run", io.StringIO()
    with redirect_stdout(said):
        distill(asked(folder))
    return folder, said.getvalue()


def test_every_layer_takes_the_fastest_that_copies_it_and_the_record_says_why(fitted):
    folder, said = fitted
    found = read_fit(folder)
    assert [each.attention for each in found.tried] == TRIED
    assert all(len(each.fidelity) == 2 for each in found.tried)
    assert {each.attention: (each.speedup, each.low, each.high) for each in found.tried} == {
        name: SPEEDS[name] for name in TRIED
    }
    assert all(0.9 < share <= 1 for each in found.tried[1:] for share in each.fidelity)
    assert found.chosen == CHOSEN
    assert "layer 0: linear, the fastest of 3 that reach 0.9" in said
    assert "layer 1: abc, the fastest of 2 that reach 0.9" in said
    assert "Attention per layer: the fastest that explains 0.9" in (folder / "report.md").read_text()
    record = json.loads((folder / "record.json").read_text())
    assert record["attention_fit"] == json.loads(fit_file(folder).read_text())
    assert yaml.safe_load((folder / "config.yaml").read_text())["student"]["attention"] == CHOSEN
    assert json.loads((folder / "student" / "config.json").read_text())["attention"] == CHOSEN
    assert not [path for path in fit_file(folder).parent.iterdir() if path.is_dir()], "short runs leave no weights"


def test_a_finished_run_is_finished_by_either_command(asked, fitted, capsys):
    folder, _ = fitted
    for config in (asked(folder), replace(read_config(folder / "config.yaml"), run_dir=str(folder))):
        distill(config)
        assert "is finished" in capsys.readouterr().out


def ends(*arguments, **keywords):
    raise KilledError


def test_killed_it_goes_on_with_what_it_has_tried(asked, fitted, tmp_path):
    config, tried = asked(tmp_path / "run"), []
    real = attention_fit.try_attention

    def second_ends(context, setup, name):
        if name == "abc":
            raise KilledError
        return real(context, setup, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_fit, "try_attention", second_ends)
        with pytest.raises(KilledError):
            distill(config)
    assert [each.attention for each in read_fit(tmp_path / "run").tried] == ["linear"]

    def noted(context, setup, name):
        tried.append(name)
        return real(context, setup, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_fit, "try_attention", noted)
        patch.setattr(phases, "run_stages", ends)
        with pytest.raises(KilledError):
            distill(config)
    assert tried == ["abc", "softmax"]
    again, whole = read_fit(tmp_path / "run"), read_fit(fitted[0])
    assert [each.fidelity for each in again.tried] == [each.fidelity for each in whole.tried]

    with pytest.MonkeyPatch.context() as patch:  # what is chosen is not chosen again
        patch.setattr(attention_fit, "try_attention", ends)
        distill(config)
    folder, other = tmp_path / "run", fitted[0]
    own, theirs = (
        StudentForSequenceClassification.from_pretrained(each / "student").state_dict() for each in (folder, other)
    )
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)


def test_a_mechanism_that_diverges_is_left_out_and_none_at_all_is_an_error(asked, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_fit, "LEARNING_RATE", 1e18)
        with pytest.raises(UserError, match=r"no mechanism could be trained, each loss was not finite"):
            distill(asked(tmp_path / "run", **{"student.fit_attentions": ["linear", "abc"]}))
    assert [each.fidelity for each in read_fit(tmp_path / "run").tried] == [None, None]


def test_a_teacher_alone_may_be_trained_with_the_same_configuration(asked, tmp_path, capsys):
    config = asked(tmp_path / "run", **{"student.fit_attentions": ["performer", "linear"], "augmentation.copies": 3})
    assert check_run(config, teacher_alone=True) == 0
    assert check_run(config) == 0
    said = capsys.readouterr()
    planned = re.search(r"fit-performer +(\d+)", said.out)
    assert planned, "the plan has the short runs"
    assert STEPS <= int(planned[1]) <= STEPS + 10
    assert "no effect" not in said.out + said.err  # performer has features, whichever is taken


def test_another_question_in_the_same_folder_is_refused(asked, fitted):
    with pytest.raises(UserError, match=r"student\.(attention|fit_fidelity)"):
        distill(asked(fitted[0], **{"student.fit_fidelity": 0.5}))


def test_speed_is_measured_and_what_cannot_be_has_none(asked, tmp_path, capsys):
    def measured(context, setup, name, length):
        if name == "linear":
            raise PointError("no memory is left")
        return MEASURED(context, setup, name, length)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_fit, "speed_over_softmax", measured)
        patch.setattr(phases, "run_stages", ends)
        with pytest.raises(KilledError):
            distill(
                asked(
                    tmp_path / "run", **{"student.softmax_layers": [-1], "student.fit_attentions": ["linear", "abc"]}
                )
            )
    found = read_fit(tmp_path / "run")
    linear, abc = found.tried
    assert linear.speedup is linear.low is linear.high is None
    assert 0 < abc.low <= abc.speedup <= abc.high
    assert linear.reason == "no memory is left"
    assert "linear: its speed could not be measured: no memory is left" in capsys.readouterr().out
    assert found.kept == [1]
    assert found.chosen == ["abc", "softmax"]


def test_students_that_are_exact_in_short_texts_are_timed_in_their_linear_form(asked, tmp_path):
    given = {"student.fit_attentions": ["abc", "hedgehog"], "student.exact_up_to": 8}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_fit, "speed_over_softmax", MEASURED)
        patch.setattr(phases, "run_stages", ends)
        with pytest.raises(KilledError):
            distill(asked(tmp_path / "run", **given))
    assert all(each.speedup and each.reason is None for each in read_fit(tmp_path / "run").tried)


def test_a_fit_that_was_begun_elsewhere_begins_anew(asked, tmp_path):
    config = asked(tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention_fit, "try_attention", ends)
        with pytest.raises(KilledError):
            distill(config)
    elsewhere = TriedAttention("linear", [1.0, 1.0], 1.0, 9.0, 9.0, 9.0)
    begun = AttentionFit(0.9, TRIED, config.data.max_length, "cuda", "float32", [], (elsewhere,))
    fit_file(tmp_path / "run").parent.mkdir(parents=True, exist_ok=True)
    fit_file(tmp_path / "run").write_text(json.dumps(to_json(begun)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "run_stages", ends)
        with pytest.raises(KilledError):
            distill(config)
    found = read_fit(tmp_path / "run")
    assert found.device == "cpu"
    assert found.tried[0].speedup == SPEEDS["linear"][0]
