"""The mechanism on the page of students passes every contract test, added as that page says."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_example_passes_the_contract(tmp_path):
    page = (ROOT / "students" / "README.md").read_text()
    section = page.partition("## A mechanism of one's own")[2]
    code = re.search(r"```python\n(.*?)```", section, flags=re.DOTALL)[1]
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "students", tmp_path / "students", ignore=ignored)
    (tmp_path / "students" / "attention" / "cosine.py").write_text(code)
    registry = tmp_path / "students" / "attention" / "__init__.py"
    source = registry.read_text()
    assert source.count("from .base import SelfAttention\n") == source.count("] = {\n") == 1
    source = source.replace(
        "from .base import SelfAttention\n",
        "from .base import SelfAttention\nfrom .cosine import CosineAttention\n",
    )
    registry.write_text(source.replace("] = {\n", '] = {\n    "cosine": CosineAttention,\n'))
    shutil.copytree(ROOT / "tests" / "helpers", tmp_path / "helpers", ignore=ignored)
    contract = shutil.copytree(ROOT / "tests" / "students" / "contract", tmp_path / "tests", ignore=ignored)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(contract), "-k", "cosine"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    passed = int(re.search(r"(\d+) passed", done.stdout)[1])
    assert passed >= 30
    assert "skipped" not in done.stdout
