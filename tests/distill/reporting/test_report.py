"""The report: one self-contained page, everything escaped, markdown that says the same."""

import re
from html.parser import HTMLParser

import pytest
from helpers.records import sample_json, typed

from distill.reporting.report import write_report
from distill.reporting.verdict import verdict_sentences
from distill.utils.errors import UserError

DISAGREEMENTS = [
    {
        "text": "<script>alert(1)</script> | $title & co",
        "label": "positive",
        "teacher": "positive",
        "student": "negative",
    },
    {"text": ("first", "second"), "label": "negative", "teacher": "negative", "student": "positive"},
]


class Page(HTMLParser):
    """What a browser would see: tags with attributes, and the text."""

    VOID = ("meta", "link", "img", "br")

    def __init__(self, source):
        super().__init__()
        self.tags, self.open, self.text = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data.replace("\N{NO-BREAK SPACE}", " "))


@pytest.fixture
def record():
    return sample_json()


def test_files_of_a_report(record, tmp_path):
    path = write_report(typed(record), tmp_path / "run")
    assert path == tmp_path / "run" / "report.html"
    files = sorted(file.relative_to(tmp_path / "run").as_posix() for file in path.parent.rglob("*") if file.is_file())
    assert files == [
        "plots/fidelity.png",
        "plots/memory_by_length.png",
        "plots/retention_speedup.png",
        "plots/speed_by_length.png",
        "plots/stages.png",
        "report.html",
        "report.md",
    ]


def test_page_is_whole_and_fetches_nothing(record, tmp_path):
    source = write_report(typed(record), tmp_path, DISAGREEMENTS, {"logits": [{"step": 1, "logits": 0.5}]}).read_text()
    page = Page(source)
    assert page.open == []  # every tag is closed
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(addresses) == 7  # six pictures and an empty icon
    assert all(address.startswith("data:") for address in addresses)
    assert "http" not in re.sub(r'src="data:[^"]*"', "", source)
    assert "$" not in "".join(page.text).replace("$title & co", "")  # every placeholder is filled


def test_verdict_comes_first(record, tmp_path):
    page = Page(write_report(typed(record), tmp_path).read_text())
    text = "".join(page.text)
    first, *others = [text.index(sentence) for sentence in verdict_sentences(typed(record))]
    assert first < text.index("Teacher against student on sst2")
    assert others == sorted(others)


def test_texts_are_escaped(record, tmp_path):
    path = write_report(typed(record), tmp_path, DISAGREEMENTS)
    page = Page(path.read_text())
    assert not any(tag == "script" for tag, _ in page.tags)
    assert any("<script>alert(1)</script> | $title & co" in text for text in page.text)
    assert r"\<script\>alert(1)\</script\> \| $title & co" in (tmp_path / "report.md").read_text()


SCRIPT = "<script>alert(1)</script>"


def with_script(value):
    """Put a script into every text of a record."""
    if isinstance(value, dict):
        return {key: with_script(item) if key != "main_metric" else item for key, item in value.items()}
    if isinstance(value, list):
        return [with_script(item) for item in value]
    return value + SCRIPT if isinstance(value, str) else value


def test_no_text_of_a_record_becomes_markup(record, tmp_path):
    """Names of tasks, stages, mechanisms and devices, labels, reasons, versions, the command."""
    names = {key: f"label{SCRIPT}" for key in ("label", "teacher", "student")}
    path = write_report(typed(with_script(record)), tmp_path, [{"text": (SCRIPT, SCRIPT), **names}])
    page = Page(path.read_text())
    assert not any(tag == "script" for tag, _ in page.tags)
    assert "".join(page.text).count(SCRIPT) > 10
    assert all(SCRIPT not in (value or "") or name == "alt" for _, found in page.tags for name, value in found.items())
    assert "<script>" not in (tmp_path / "report.md").read_text().replace(r"\<script\>", "")


def test_pictures_have_a_text(record, tmp_path):
    page = Page(write_report(typed(record), tmp_path).read_text())
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")


def test_markdown_pictures_exist(record, tmp_path):
    write_report(typed(record), tmp_path)
    named = re.findall(r"\]\((plots/[^)]+)\)", (tmp_path / "report.md").read_text())
    assert len(named) == 5
    assert all((tmp_path / name).is_file() for name in named)


def test_many_disagreements_are_counted(record, tmp_path):
    write_report(typed(record), tmp_path, [DISAGREEMENTS[1]] * 25)
    text = (tmp_path / "report.md").read_text()
    assert text.count("first / second") == 20
    assert "5 more are in predictions.parquet" in text


def test_a_bare_record_still_reports(record, tmp_path):
    record |= {"speed": [], "memory": [], "stages": [], "crossover_length": None, "environment": {}, "agreement": None}
    record["models"]["baseline"]["metrics"] = None
    text = Page(write_report(typed(record), tmp_path).read_text()).text
    assert any("97.5 %" in part for part in text)
    assert not (tmp_path / "plots").exists()


def test_no_row_and_no_column_of_gaps(record, tmp_path):
    for point in record["speed"]:
        point |= {"depth_speedup": None, "attention_speedup": None}
    record["speed"][0] |= dict.fromkeys(
        ("teacher_ms", "student_ms", "speedup", "low", "high", "depth_speedup", "attention_speedup")
    ) | {"reason": "out of memory"}
    record["environment"] |= {"gpu": None}
    page = "".join(Page(write_report(typed(record), tmp_path).read_text()).text)
    for text in (page, (tmp_path / "report.md").read_text()):
        assert "n/a" not in text
        assert "depth · attention" not in text
        assert "out of memory" in text


def test_the_file_of_somebodys_own_data_is_the_title(record, tmp_path):
    record |= {"task": "custom", "source": "folder", "data_name": "tickets.csv"}
    page = Page(write_report(typed(record), tmp_path).read_text())
    assert "Distillation report: tickets.csv" in page.text
    assert "custom" not in "".join(page.text)


def test_a_fidelity_below_zero_is_said_in_words(record, tmp_path):
    for layer in record["stages"][0]["fidelity"]:
        layer["attention_output"] = -2.449
    write_report(typed(record), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "worse than the mean" in text
    assert "-244.9" not in text


def test_the_page_has_a_dark_form_and_a_cue_for_what_is_wider(record, tmp_path):
    source = write_report(typed(record), tmp_path).read_text()
    assert "prefers-color-scheme: dark" in source
    tags = Page(source).tags
    scrolled = [attributes for tag, attributes in tags if tag == "div" and attributes.get("class") == "scroll"]
    assert len(scrolled) == sum(tag in ("table", "img") for tag, _ in tags)


def test_no_place_to_write(record, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the report"):
        write_report(typed(record), tmp_path / "file")
