"""The pages: tables are those of the records, paths and commands exist, prose quotes no figure."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from distill.config.parsing import parse_command
from distill.reporting.result_pages import TABLES, find_pages
from distill.reporting.result_pictures import PICTURES
from distill.sweeps.schema import parse_sweep
from distill.utils.errors import UserError
from pipelines import (
    bench_gpu,
    bench_kernels,
    bench_mechanisms,
    bench_repeatability,
    bench_text,
    cache,
    compare,
    export,
    gather_text,
    results,
)
from students import ATTENTIONS

ROOT = Path(__file__).resolve().parents[1]
PAGES = find_pages(ROOT)
LINES = {
    "README.md": 200,
    "pipelines/README.md": 150,
    "configs/README.md": 160,
    "distill/README.md": 200,
    "students/README.md": 180,
    "teachers/README.md": 80,
    "notebooks/README.md": 300,
    "notebooks/SYSTEMS.md": 200,
    "tests/README.md": 80,
}
"""A page that grows beyond this is one that nobody reads."""
PARSERS = {
    "distill": parse_command,
    "finetune_teacher": parse_command,
    "bench_text": bench_text.parse,
    "gather_text": gather_text.parse,
    "bench_training": parse_command,
    "sweep": parse_sweep,
    "compare": compare.parse,
    "export": export.parse,
    "cache": cache.parse,
    "bench_gpu": bench_gpu.parse,
    "bench_kernels": bench_kernels.parse,
    "bench_mechanisms": bench_mechanisms.parse,
    "bench_repeatability": bench_repeatability.parse,
    "results": results.make_parser().parse_args,
}
over_pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_tables(text: str) -> str:
    """Return a page without its generated tables."""
    return re.sub(r"(?s)<!-- table: .*?<!-- end -->", "", text)


def commands() -> list[tuple[str, str]]:
    """Return (script, arguments) of every command on the pages, in code and between backticks."""
    found = []
    for page in PAGES:
        text = page.read_text()
        code = "\n".join(re.findall(r"(?s)```bash\n(.*?)```", text)).replace("\\\n", " ").splitlines()
        for line in [*code, *re.findall(r"`([^`\n]+)`", without_tables(text))]:
            match = re.match(r"(?:python|accelerate launch|torchrun)\b.*?pipelines/(\w+)\.py(.*)", line.strip())
            named_alone = match is not None and (match[1], match[2]) == ("distill", "")
            if match and not named_alone and "..." not in line:
                found.append((match[1], match[2]))
    return sorted(set(found))


def copy_of_the_pages(folder: Path) -> Path:
    """Return a folder with all pages and their pictures, and the records."""
    for page in [*PAGES, *(ROOT / name for name in PICTURES if (ROOT / name).exists())]:
        copy = folder / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, copy)
    (folder / "notebooks" / "records").symlink_to(ROOT / "notebooks" / "records")
    return folder


def run_results(monkeypatch, root: Path, *options: str) -> int:
    monkeypatch.setattr(results, "ROOT", root)
    monkeypatch.setattr(sys, "argv", ["results.py", *options])
    return results.main()


def test_the_shipped_pages_are_those_of_the_records_and_checking_them_needs_no_torch():
    code = (
        "import sys; from pipelines import results; sys.argv = ['results.py', '--check']; code = results.main();"
        "sys.exit(code or ('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_changed_figure_is_named_and_written_anew(monkeypatch, capsys, tmp_path):
    root = copy_of_the_pages(tmp_path)
    page = root / "README.md"
    shipped = page.read_text()
    assert "**94.2**" in shipped
    page.write_text(shipped.replace("**94.2**", "**95.2**"))
    assert run_results(monkeypatch, root, "--check") == 1
    assert capsys.readouterr().out == "README.md: table glue-retention differs from its records\n"
    assert run_results(monkeypatch, root) == 0
    assert page.read_text() == shipped


def test_a_picture_that_is_missing_or_of_other_records_is_drawn(monkeypatch, capsys, tmp_path):
    root = copy_of_the_pages(tmp_path)
    name = "notebooks/language_models_tokens.png"
    (root / name).unlink()
    assert run_results(monkeypatch, root, "--check") == 1
    assert capsys.readouterr().out == f"{name}: differs from its records\n"
    assert run_results(monkeypatch, root) == 0
    assert run_results(monkeypatch, root, "--check") == 0
    assert (root / name).stat().st_size > 10_000


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "<!-- table: glue-retentions -->\n<!-- end -->",
            r"^README.md:1: no table 'glue-retentions'; .*glue-retention'",
        ),
        ("<!-- table: glue-speed -->\n", r"^README.md:1: table glue-speed is not closed"),
        ("<!-- table: glue-speed -->\n<!-- table: front -->\n<!-- end -->", r"^README.md:1: .* is not closed"),
    ],
)
def test_a_mistake_on_a_page_is_one_line(monkeypatch, tmp_path, lines, message):
    root = copy_of_the_pages(tmp_path)
    (root / "README.md").write_text(lines)
    with pytest.raises(UserError, match=message):
        run_results(monkeypatch, root, "--check")


def test_a_missing_record_is_named(monkeypatch, tmp_path):
    (tmp_path / "README.md").write_text("<!-- table: glue-speed -->\n<!-- end -->\n")
    with pytest.raises(UserError, match=r"README.md:1: table glue-speed: record .*speed/abc-6.json cannot be read"):
        run_results(monkeypatch, tmp_path)


def test_every_table_stands_on_one_page():
    names = [name for page in PAGES for name in re.findall(r"(?m)^<!-- table: (.*) -->$", page.read_text())]
    assert sorted(names) == sorted(TABLES)


def test_every_folder_of_the_top_level_has_a_page():
    assert {str(page.relative_to(ROOT)) for page in PAGES} == set(LINES)


@over_pages
def test_a_page_is_short(page):
    assert len(page.read_text().splitlines()) <= LINES[str(page.relative_to(ROOT))]


@over_pages
def test_every_link_and_path_exists(page):
    text = page.read_text()
    links = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    # GitHub finds its runs of a workflow from a page at the top, two levels up, whoever owns the repository.
    links = [re.sub(r"^\.\./\.\./actions/(workflows/\w+\.yml)(/badge\.svg)?$", r".github/\1", link) for link in links]
    missing = [target for target in links if not (page.parent / target.partition("#")[0]).exists()]
    assert missing == []
    named = re.findall(r"(?<![\w/])(?:configs|pipelines|distill|students|teachers|notebooks|tests)/[\w./-]*\w", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent.name != "students"], ids=lambda page: str(page)
)
def test_prose_quotes_no_decimal(page):
    """Figures stand in generated tables; code, links and what is computed on the page of students are not prose."""
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`|\]\([^)]*\)", "", without_tables(page.read_text()))
    allowed = {"Python 3.11", "Apache-2.0"}
    assert [match for match in re.findall(r"[\w-]*[ -]?\d+\.\d+", text) if match.strip() not in allowed] == []


@over_pages
def test_a_page_names_nothing_of_one_machine(page):
    assert not re.search(r"\.\./shared|/work\b|/home/", page.read_text())


@pytest.mark.parametrize(("script", "arguments"), commands(), ids=lambda text: text.strip()[:60])
def test_every_command_parses(script, arguments, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = shlex.split(arguments, comments=True)
    if script == "sweep":
        given += ["--bench", "null"]  # a file that pipelines/bench_mechanisms.py has to write first
    if given == ["--help"]:
        with pytest.raises(SystemExit, match=r"^0$"):
            PARSERS[script](given)
    else:
        PARSERS[script](given)


def test_commands_are_found():
    assert {script for script, _ in commands()} == set(PARSERS)


def test_the_table_of_mechanisms_is_what_the_classes_say():
    page = (ROOT / "students" / "README.md").read_text()
    rows = [line.strip("|").split("|") for line in page.splitlines() if re.match(r"\| `\w+` \|", line)]
    found = {cells[0].strip().strip("`"): [cell.strip() for cell in cells[-2:]] for cells in rows}
    assert found == {
        name: ["yes" if attention.has_attention_map else "no", ", ".join(attention.options)]
        for name, attention in ATTENTIONS.items()
    }
