"""Student, card and record go to the Hub once; what is in the way is one warning, and the run has its result."""

import dataclasses
import json

import pytest
from helpers.stand_in_hub import OWNER, stand_in_hub
from huggingface_hub import constants

from distill.config.schema import Config, HubConfig
from distill.preflight.services import check_hub
from distill.training.run_folder import RunFolder
from pipelines.run.publish import publish

TOKEN = "hf_nobody_may_see_this"
CARD = "---\nlibrary_name: transformers\n---\n\n# A student\n"
CONTENT = {
    "student/config.json": "{}",
    "student/README.md": CARD,
    "student/attention/performer.py": "# code",
    "student/model.safetensors": "weights",
    "student/.config.json.1.incomplete": "torn",
    "record.json": '{"schema": 1}',
    "config.yaml": "task: sst2",
}
PUSHED = {"config.json", "README.md", "attention/performer.py", "model.safetensors", "record.json"}


@pytest.fixture
def folder(tmp_path):
    for name, content in CONTENT.items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "run" / "checkpoints").mkdir()
    return RunFolder(tmp_path / "run")


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with stand_in_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        yield server


def config(repo, **settings):
    return Config("sst2", hub=HubConfig(repo, **settings))


@pytest.mark.parametrize("repo", ["team/reviews", "reviews"])
def test_everything_that_is_needed_goes_up_once(folder, hub, repo, capsys):
    publish(config(repo), folder)
    assert set(hub.files) == PUSHED
    assert hub.files["README.md"].decode() == CARD
    assert hub.files["record.json"].decode() == CONTENT["record.json"]
    (made,) = hub.made
    assert (made["name"], made.get("organization")) == ("reviews", "team" if "/" in repo else None)
    assert made.get("private", made.get("visibility") == "private") is True
    owner = "team" if "/" in repo else OWNER
    assert [path for path, _ in hub.asked if path.startswith(f"/api/models/{owner}/reviews/commit/")]
    assert {token for _, token in hub.asked} == {f"Bearer {TOKEN}"}
    captured = capsys.readouterr()
    assert captured.out == f"pushed: {hub.url}/{owner}/reviews\n"
    asked = len(hub.asked)
    publish(config(repo), folder)  # as the same command does again
    assert len(hub.asked) == asked
    folder.record.write_text('{"schema": 1, "deployments": []}')  # as an export does
    publish(config(repo), folder)
    assert hub.files["record.json"] == folder.record.read_bytes()
    publish(config("team/another"), folder)
    assert hub.made[-1]["name"] == "another"
    assert TOKEN not in captured.out + captured.err + (folder.path / "checkpoints" / "pushed.json").read_text()


def test_a_public_repository_is_made_on_request(folder, hub):
    publish(config("reviews", private=False), folder)
    (made,) = hub.made
    assert made.get("private", made.get("visibility") == "private") is False


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "nobody is logged in here, or the token is not valid"),
        (403, "the token may not write there"),
        (404, "there is no such place"),
        (400, "the Hub answered 400"),
    ],
)
def test_a_refusal_keeps_the_result_and_says_how_to_push_later(folder, hub, status, words, capsys):
    before = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
    hub.status = status
    publish(config("team/reviews"), folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: hub.repo team/reviews: not pushed: {words}")
    assert line.endswith(
        f"hf upload team/reviews {folder.student} . && hf upload team/reviews {folder.record} record.json"
    )
    assert TOKEN not in line
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == before
    hub.status = 200
    publish(config("team/reviews"), folder)
    assert set(hub.files) == PUSHED


def test_nobody_there(folder, hub, monkeypatch, capsys):
    hub.shutdown()
    hub.server_close()
    publish(config("team/reviews"), folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert "not pushed: the Hub cannot be reached" in line
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    publish(config("team/reviews"), folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert "not pushed: HF_HUB_OFFLINE is set. The result is whole in" in line


def test_nothing_is_asked_without_a_repository(folder, hub):
    publish(config(None), folder)
    assert hub.asked == []
    assert not (folder.path / "checkpoints" / "pushed.json").exists()


def test_the_start_says_what_will_not_work(monkeypatch, hub):
    def line(settings):
        found = list(check_hub(settings))
        return [(each.level, each.line) for each in found]

    assert line(config(None)) == []
    ((level, text),) = line(config("team/reviews"))
    assert (level, "gets student, card and record" in text) == ("ok", True)
    monkeypatch.setattr("distill.preflight.services.get_token", lambda: None)
    ((level, text),) = line(config("team/reviews"))
    assert (level, "nobody is logged in" in text) == ("warning", True)
    monkeypatch.setattr("distill.preflight.services.is_offline_mode", lambda: True)
    ((level, text),) = line(config("team/reviews"))
    assert (level, "HF_HUB_OFFLINE is set" in text) == ("warning", True)
    assert hub.asked == []


def test_no_token_in_what_a_run_writes_down(folder):
    assert TOKEN not in json.dumps(dataclasses.asdict(config("team/reviews")))
