"""Data flows one way: a module imports only from rows above its own (see docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "multitok"

ROWS = [
    {"errors"},
    {"protocol"},
    {"codebook"},
    {"quantize"},
    {"frontend"},
    {"nets"},
    {"tokenizers"},
    {"registry", "checkpoint", "codes_file"},
    {"vocabulary", "interleave"},
    {"shards"},
    {"loader"},
    {"train", "metrics"},
    {"prepare"},
    {"report", "economics"},
    {"doctor"},
    {"cli"},
]
ROW = {module: row for row, modules in enumerate(ROWS) for module in modules}


def _imports(source: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(source)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full: from multitok.x import y"
        found |= {name.split(".")[1] for name in names if name.startswith("multitok.")}
    return found


def _violations(module: str, source: str) -> set[str]:
    return {other for other in _imports(source) if ROW[other] > ROW[module]}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_up_only(path: Path) -> None:
    module = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if module != "__init__":
        assert _violations(module, path.read_text(encoding="utf-8")) == set()


def test_that_test_can_fail() -> None:
    assert _violations("codebook", "from multitok.cli import main") == {"cli"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_outgrows_a_reader(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
