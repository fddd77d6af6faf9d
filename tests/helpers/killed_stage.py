"""A stage that ends in the middle, as if its process had been interrupted."""

from collections.abc import Callable

import pytest

from distill.training.loop import StageTrainer


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int, run: Callable[[], object]) -> None:
    """Call ``run``, which trains, and interrupt it when ``steps`` steps are taken."""
    original, calls = StageTrainer.train_step, []

    def dying(*arguments: object) -> object:
        calls.append(None)
        if len(calls) > steps:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "train_step", dying)
        with pytest.raises(KeyboardInterrupt):
            run()
