"""Docstrings cannot drift: what "Args:" lists is what the signature takes, in its order."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "multitok"


def _documented(docstring: str) -> list[str] | None:
    """Names listed under "Args:", None without such a section."""
    match = re.search(r"^( *)Args:\n(.*?)(?=^\1\S|\Z)", docstring + "\n", re.MULTILINE | re.DOTALL)
    if match is None:
        return None
    return re.findall(rf"^{match[1]}    (\w+):", match[2], re.MULTILINE)


def _takes(node: ast.FunctionDef) -> list[str]:
    arguments = node.args
    names = [a.arg for a in [*arguments.posonlyargs, *arguments.args]]
    names += [arguments.vararg.arg] if arguments.vararg else []
    names += [a.arg for a in arguments.kwonlyargs]
    names += [arguments.kwarg.arg] if arguments.kwarg else []
    return [name for name in names if name not in ("self", "cls")]


def _fields(node: ast.ClassDef) -> list[str]:
    """What a class takes: its `__init__`'s arguments, or a dataclass's fields."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _takes(item)
    annotated = [item for item in node.body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)]
    return [
        a.target.id for a in annotated if isinstance(a.target, ast.Name) and "ClassVar" not in ast.dump(a.annotation)
    ]


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _drifts(source: str) -> Iterator[tuple[str, list[str], list[str]]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            documented = _documented(ast.get_docstring(node) or "")
            taken = _takes(node) if isinstance(node, ast.FunctionDef) else _fields(node)
            if documented is not None and documented != taken:
                yield node.name, documented, taken


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_args_sections_match_signatures(path: Path) -> None:
    assert list(_drifts(path.read_text(encoding="utf-8"))) == []


def test_that_test_can_fail() -> None:
    source = 'def f(a, *, b=1):\n    """Do.\n\n    Args:\n        a: One.\n        c: Two.\n    """\n'
    assert list(_drifts(source)) == [("f", ["a", "c"], ["a", "b"])]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module has no docstring"
    if not _is_public(path.name) and path.stem != "__init__":
        return
    public = [
        node
        for owner in [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and _is_public(node.name))]
        for node in owner.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and _is_public(node.name)
    ]
    overloads = {"overload", "setter"}
    bare = [
        node.name
        for node in public
        if not ast.get_docstring(node)
        and not any(name in ast.dump(d) for d in node.decorator_list for name in overloads)
    ]
    assert bare == []
