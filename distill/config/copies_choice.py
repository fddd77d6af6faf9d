"""The choice of altered copies, as a run keeps it, and how its answer replaces the question.

With ``augmentation.choose: true`` a run begins with kinds of copies that may help. What short runs say of them is
written down in its folder; from then on the run is one whose configuration names those that do.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from distill.config.schema import PACKED, Config
from distill.config.shape_search import read_kept
from distill.utils.record_json import JsonObject

COPIES_CHOICE = "copies_choice"
"""Folder below ``checkpoints/``."""
NONE = "none"
"""What the run without copies is called among the kinds."""


@dataclass(frozen=True)
class TriedCopies(JsonObject):
    """Copies of one kind that a student has read beside the train texts, for as many steps as any other."""

    kind: str
    """NONE: the train texts alone, more often."""
    divergence: float | None
    """Mean over the held-out texts, from the teacher's answers to the student's: KL in nats, or squared label units;
    None where it, or a loss on the way, was not finite."""
    same_answers: float | None
    """Share of the held-out texts on which both answer the same; None where answers are numbers or sets."""
    agreement: float | None
    """The task's main metric of the teacher's answers to copies, by the labels of what they were made of."""
    seconds: float


@dataclass(frozen=True)
class CopiesChoice(JsonObject):
    """What was asked for, what was tried, and what was taken."""

    copies: int
    candidates: list[str]
    """Both as they were configured."""
    main_metric: str
    """In which agreement is given."""
    stages: list[str]
    """In which each was tried."""
    texts: int
    """What the stages read in a pass, copies included."""
    texts_without: int
    """The same without any copies."""
    tried: tuple[TriedCopies, ...] = ()
    is_finished: bool = False

    @property
    def chosen(self) -> list[str]:
        """The kinds that bring the student nearer to its teacher than more passes over the texts do, best first."""
        found = {each.kind: each.divergence for each in self.tried if each.divergence is not None}
        bound = found.pop(NONE, float("inf"))
        return sorted((kind for kind, divergence in found.items() if divergence < bound), key=found.__getitem__)

    def answers(self, config: Config) -> bool:
        """Tell whether this is the choice that a configuration asks for."""
        asked = config.augmentation
        return asked.choose and asked.kinds == self.candidates and asked.copies in (None, self.copies)


def choice_file(run_dir: Path | str) -> Path:
    """Return where a run keeps its choice."""
    return Path(run_dir) / "checkpoints" / COPIES_CHOICE / "choice.json"


def read_choice(run_dir: Path | str) -> CopiesChoice | None:
    """Return what a run has written down of its choice, None where it has none.

    Raises:
        UserError: it is torn.
    """
    return read_kept(CopiesChoice, choice_file(run_dir), "choose")


def with_copies(config: Config, choice: CopiesChoice) -> Config:
    """Return the configuration of a run that makes the chosen copies; where there are none, of as many steps."""
    augmentation = replace(config.augmentation, choose=False, copies=choice.copies)
    if choice.chosen:
        return replace(config, augmentation=replace(augmentation, kinds=choice.chosen))
    stages = tuple(
        stage if stage.texts == PACKED else replace(stage, epochs=stage.epochs * choice.texts / choice.texts_without)
        for stage in config.stages
    )
    return replace(config, augmentation=replace(augmentation, copies=0), stages=stages)


def with_found_copies(config: Config, run_dir: Path | str) -> Config:
    """Return the configuration with the copies that its run has chosen, where it asked for a choice."""
    choice = read_choice(run_dir) if config.augmentation.choose else None
    if choice is None or not choice.is_finished or not choice.answers(config):
        return config
    return with_copies(config, choice)
