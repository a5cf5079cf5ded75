"""State files are decoded by decoders that were made when the modules were imported, in one thread."""

from __future__ import annotations

import ast
from pathlib import Path

import mlops_integrations

PACKAGE = Path(mlops_integrations.__file__).parent


def test_no_type_is_decoded_for_the_first_time_in_two_threads() -> None:
    """There msgspec 0.22 ends the process: it shows its table of a type's fields to others while it is half filled."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"msgspec.json.decode", "msgspec.convert"}:
                found += [f"{path.name}:{node.lineno}"] * any(word.arg == "type" for word in node.keywords)
                found += [f"{path.name}:{node.lineno}"] * (ast.unparse(node.func) == "msgspec.convert")
    # The command line has one thread.
    assert [place for place in found if not place.startswith("run_summary.py:")] == []
