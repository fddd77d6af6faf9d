"""What must never be in a file that is passed on."""

from pathlib import Path

import pytest

from distill.evaluation.record import plain
from distill.utils.redaction import publishable


@pytest.fixture(autouse=True)
def private(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("HUB_TOKEN", "hf_abcdefghijklmnop")
    monkeypatch.setenv("MY_API_KEY", "0123456789")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "longfalse")
    monkeypatch.setenv("DEBUG_TOKEN", "1")


def test_the_home_folder_becomes_a_tilde_and_its_neighbours_stay():
    assert publishable("no file /home/somebody/data/x.csv") == "no file ~/data/x.csv"
    assert publishable("HOME=/home/somebody") == "HOME=~"
    assert publishable("/home/somebody-else/x /home/somebody2") == "/home/somebody-else/x /home/somebody2"


def test_secrets_of_the_environment_become_their_names():
    assert publishable("Bearer hf_abcdefghijklmnop, 0123456789!") == "Bearer $HUB_TOKEN, $MY_API_KEY!"
    assert publishable("longfalse 1") == "longfalse 1"


def test_a_home_at_the_root_hides_nothing(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert publishable("/data/x") == "/data/x"


def test_every_text_of_a_record_is_publishable():
    record = {"memory": [{"reason": f"OSError: {Path.home()}/run: 401 for hf_abcdefghijklmnop"}], "n": (1, "x")}
    assert plain(record) == {"memory": [{"reason": "OSError: ~/run: 401 for $HUB_TOKEN"}], "n": [1, "x"]}
