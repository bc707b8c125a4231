"""`import multitok` stays light, and its public names are what it says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import multitok

HEAVY = {"torch", "torchaudio", "librosa", "numba", "scipy", "pyarrow", "tokenizers", "tiktoken", "cupy", "ray", "rich"}


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in out.split()} & HEAVY


def test_importing_multitok_and_its_interface_loads_no_framework() -> None:
    assert _loaded_by("import multitok; multitok.Codes; multitok.MultitokError; import multitok.cli") == set()


def test_that_test_can_fail() -> None:
    assert _loaded_by("import multitok, rich, pyarrow") == {"rich", "pyarrow"}


def test_public_names_exist_and_are_listed() -> None:
    for name in multitok.__all__:
        assert getattr(multitok, name) is not None
    assert set(multitok.__all__) <= set(dir(multitok))


def test_type_checkers_see_the_names_that_exist() -> None:
    tree = ast.parse(Path(multitok.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen | {"__version__"} == set(multitok.__all__)
