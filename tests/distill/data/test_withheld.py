"""Withheld texts are found whole and in part, however they are written."""

import unicodedata

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


def test_a_whole_text_of_one_run_is_found_in_another():
    text = " ".join(LONG.split()[:RUN])
    assert f"Before it {text} and behind it" in WithheldTexts([text])


@pytest.mark.parametrize("text", ["", "...", "a film", f"{SHORT} And more.", " ".join(LONG.split()[1 : 1 + RUN - 1])])
def test_few_words_in_common_are_chance(withheld, text):
    assert text not in withheld


@pytest.mark.parametrize("text", ["한국어 문장입니다", "Ein Café, naïvement", "STRASSE und Straße"])
def test_accents_and_syllables_are_found_however_they_are_encoded(text):
    withheld = WithheldTexts([unicodedata.normalize("NFC", text)])
    assert unicodedata.normalize("NFD", text) in withheld
    assert text.upper() in withheld


def test_scripts_without_spaces_are_found_in_part():
    text = "".join(chr(0x4E00 + number) for number in range(40))
    assert f"他说：{text[3:33]}。" in WithheldTexts([text])
    assert f"他说：{text[3:13]}。" not in WithheldTexts([text])
