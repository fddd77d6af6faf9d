"""The model card: its evaluation results read back, and miniature data never passes for the real set."""

import pytest
from helpers.records import sample_json, typed
from huggingface_hub import ModelCard

from distill.reporting.model_card import write_model_card
from distill.utils.errors import UserError


@pytest.fixture
def record():
    return sample_json()


def test_results_read_back(record, tmp_path):
    card = ModelCard.load(write_model_card(typed(record), tmp_path))
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.8933)
    assert (result.dataset_type, result.dataset_config, result.dataset_split) == ("nyu-mll/glue", "sst2", "validation")
    assert card.data.to_dict()["library_name"] == "transformers"
    assert card.data.datasets == ["nyu-mll/glue"]


@pytest.mark.parametrize("source", ["embedded", "/data/glue"])
def test_only_hub_data_is_named_as_hub_data(record, tmp_path, source):
    path = write_model_card(typed(record), tmp_path, source=source)
    card = ModelCard.load(path)
    assert card.data.to_dict().get("datasets") is None
    assert "nyu-mll" not in path.read_text()
    assert "/data/glue" not in path.read_text()
    assert ("miniature" in card.data.eval_results[0].dataset_name) == (source == "embedded")


def test_two_splits_stay_apart(record, tmp_path):
    record |= {"task": "mnli", "split": "validation_matched"}
    record["models"]["student"]["metrics"] = {"accuracy": 0.8, "accuracy_mismatched": 0.79}
    results = ModelCard.load(write_model_card(typed(record), tmp_path)).data.eval_results
    assert {(result.dataset_split, result.metric_value) for result in results} == {
        ("validation_matched", 0.8),
        ("validation_mismatched", 0.79),
    }


def test_a_null_metric_is_not_a_result(record, tmp_path):
    record["models"]["student"]["metrics"]["f1"] = None
    results = ModelCard.load(write_model_card(typed(record), tmp_path)).data.eval_results
    assert [result.metric_type for result in results] == ["accuracy"]


def test_custom_task_and_verdict(record, tmp_path):
    record["task"] = "custom"
    text = write_model_card(typed(record), tmp_path, source="mine").read_text()
    assert "keeps 97.5 % [95.9, 99.1] of its teacher's accuracy" in text
    assert "trust_remote_code=True" in text


def test_a_pair_is_loaded_as_a_pair(record, tmp_path):
    record["task"] = "rte"
    assert (
        'tokenizer("a text", "its pair", return_tensors="pt")' in write_model_card(typed(record), tmp_path).read_text()
    )


def test_no_place_to_write(record, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the model card"):
        write_model_card(typed(record), tmp_path / "file")
