"""The wheel is whole: installed in an empty environment, away from the repository, it runs the demo."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def test_it_serves_every_platform_and_carries_checkpoints_and_kernels(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tracked = subprocess.run(
        ["git", "ls-files", "cuda", "checkpoints"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert tracked
    assert {f"multitok/{path}" for path in tracked} <= set(names)
    assert "multitok/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "examples", "benchmarks"))]


def test_the_demo_runs_from_it_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(*command: str) -> str:
        return subprocess.run(
            [str(python), *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        ).stdout

    where = Path(run("-c", "import multitok; print(multitok.__file__)").strip())
    assert where.is_relative_to(tmp_path / "venv")
    assert "0 items in quarantine" in run("examples/demo.py", "--out", "out")
    assert len(list((tmp_path / "out" / "decoded").iterdir())) == 7
    assert "sha256 verified" in run("-m", "multitok.cli", "doctor")
