"""The tables of fields in ``docs`` name tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`((?:tests/)?[\w/]+\.py)::(\w+)`")

PATH = re.compile(r"`((?:tests|docs|examples|benchmarks|mlops_integrations)/[\w/.-]*\w)[:`]")


def test_the_pages_name_what_is_there() -> None:
    """Each path of ours that a page names leads somewhere."""
    pages = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {path for page in pages for path in PATH.findall(page.read_text("utf-8"))}
    assert len(named) > 3
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_tags_are_told() -> None:
    """Each tag of ours that the code sets is on the page about runs."""
    sources = (ROOT / "mlops_integrations").rglob("*.py")
    tags = {tag for source in sources for tag in re.findall(r'"(mlops\.[a-z_.]+)"', source.read_text("utf-8"))}
    page = (ROOT / "docs" / "run.md").read_text("utf-8")
    assert len(tags) > 5
    assert [tag for tag in sorted(tags) if f"`{tag}`" not in page] == []


@pytest.mark.parametrize("page", ["oracle-fields.md", "preview-fields.md"])
def test_the_table_names_tests(page: str) -> None:
    """Each row at least one, none that is not there."""
    rows = [line for line in (ROOT / "docs" / page).read_text("utf-8").splitlines() if line[:1] == "|"]
    rows = [row for row in rows if not row.startswith(("|---", "| in the document"))]
    assert len(rows) > 25
    assert [row for row in rows if not NAMED.search(row)] == []
    for file, name in {found for row in rows for found in NAMED.findall(row)}:
        path = ROOT / (file if file.startswith("tests/") else f"tests/oracle/{file}")
        tests = {node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}
        assert name in tests, f"{path} has no {name}"
