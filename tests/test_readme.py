"""The README tells the truth: its code runs, its tables match the code, its tree exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import multitok
from multitok.checkpoint import shipped_checkpoints

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user's, with the sample data in it."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


def test_its_code_runs_in_the_order_in_which_it_is_read(workplace: Path) -> None:
    steps = re.findall(r"^```(python|console)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert {language for language, _ in steps} == {"python", "console"}
    for language, block in steps:
        if language == "python":
            _run([sys.executable, "-c", block], workplace)
            continue
        for line in block.splitlines():
            if line.startswith("$ multitok "):
                command = line.removeprefix("$ multitok ").partition("#")[0].split()
                _run([sys.executable, "-m", "multitok.cli", *command], workplace)


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def test_the_first_example_is_at_most_ten_lines_and_asserts() -> None:
    first = _blocks("python")[0].strip().splitlines()
    assert len([line for line in first if line.strip()]) <= 10
    assert any(line.startswith("assert ") for line in first)


def test_the_table_of_tokenizers_is_complete_and_right() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \|.*\| (yes|no) \|$", README, re.MULTILINE)
    specs = {name: multitok.load(name).spec for name in shipped_checkpoints()}
    assert {row[0]: (row[1], row[2]) for row in rows} == {
        name: (spec.kind, "yes" if spec.lossless else "no") for name, spec in specs.items()
    }


def test_every_figure_it_states_was_printed_by_a_benchmark() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    section = README.partition("## Measured\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\|.*\| (.*) \|$", section, re.MULTILINE)
    figures = re.findall(r"\d[\d.,]*\d", " ".join(cells))
    assert len(figures) >= 6
    printed = set(re.findall(r"\d[\d.,]*\d", page))
    assert [figure for figure in figures if figure not in printed] == []


def test_the_tree_it_draws_exists() -> None:
    tree = _blocks("text")[-1]
    paths = re.findall(r"^(\S+)\s{2,}\S", tree, re.MULTILINE)
    assert len(paths) >= 10
    for path in paths:
        assert (ROOT / path).exists(), path


def test_its_links_into_the_repository_resolve() -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#]+)", README):
        assert (ROOT / target).exists(), target
