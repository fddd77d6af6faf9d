"""Withheld texts are found whole and in part, however they are written."""

import pytest

from distill.data.withheld import RUN, WithheldTexts

LONG = " ".join(f"word{number}" for number in range(60))
SHORT = "A film, without a plot."


@pytest.fixture(scope="module")
def withheld():
    return WithheldTexts([SHORT, LONG, "", "..."])


@pytest.mark.parametrize(
    "text", [SHORT, "a film without a PLOT", "  A film\n(without a plot) ", LONG, f"so: {LONG}, and"]
)
def test_the_same_words_are_found(withheld, text):
    assert text in withheld


@pytest.mark.parametrize("start", [0, 1, RUN - 1, RUN, 60 - (2 * RUN - 1)])
def test_a_run_of_words_is_found_wherever_it_begins(withheld, start):
    part = " ".join(LONG.split()[start : start + 2 * RUN - 1])
    assert f"Before it {part} and behind it" in withheld


@pytest.mark.parametrize("text", ["", "...", "a film", f"{SHORT} And more.", " ".join(LONG.split()[1 : 1 + RUN - 1])])
def test_few_words_in_common_are_chance(withheld, text):
    assert text not in withheld
