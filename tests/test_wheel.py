"""The wheel is whole: installed in an empty environment, away from the repository, it runs the demo."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


LIBRARY = "multitok/codebook/libmultitok_codebook.so"


def build(folder: Path, **environment: str) -> Path:
    """A wheel of the repository, built from nothing."""
    where = ["--wheel-dir", str(folder), "--config-settings", f"build-dir={folder / 'build'}"]
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", *where, str(ROOT)]
    subprocess.run(command, env=os.environ | environment, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def wheel_without_compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel_without_compiler"), CXX="/nonexistent")


def run_from(wheel: Path, tmp_path: Path, code: str) -> str:
    """What `code` prints with the wheel in place of the package installed here."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), str(wheel)]
    subprocess.run(command, check=True)
    # -S: an editable install would come first.
    path = os.pathsep.join([str(tmp_path), sysconfig.get_path("platlib"), sysconfig.get_path("purelib")])
    command = [sys.executable, "-S", "-c", code]
    environment = os.environ | {"PYTHONPATH": path}
    return subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("built", ["wheel", "wheel_without_compiler"])
def test_it_serves_every_python_and_carries_checkpoints_and_kernels(built: str, request: pytest.FixtureRequest) -> None:
    wheel: Path = request.getfixturevalue(built)
    assert re.search(r"-py3-none-(?!any)\w+\.whl$", wheel.name)
    names = zipfile.ZipFile(wheel).namelist()
    tracked = subprocess.run(
        ["git", "ls-files", "cuda", "checkpoints"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert tracked
    assert {f"multitok/{path}" for path in tracked} <= set(names)
    assert "multitok/py.typed" in names
    assert not [name for name in names if name.startswith(("tests", "examples", "benchmarks", "native", "build"))]


@needs_compiler
def test_its_library_needs_no_cpp_library_and_shows_its_interface_only(wheel: Path, tmp_path: Path) -> None:
    library = zipfile.ZipFile(wheel).extract(LIBRARY, tmp_path)
    assert b"libstdc++.so" not in Path(library).read_bytes()
    nm = subprocess.run(["nm", "--dynamic", "--defined-only", library], capture_output=True, text=True, check=True)
    shown = {line.split()[-1] for line in nm.stdout.splitlines()}
    declared = set(re.findall(r"\b(mt_\w+)\(", (ROOT / "native" / "multitok_codebook.h").read_text()))
    assert shown == declared


@needs_compiler
def test_the_library_is_found_where_the_wheel_puts_it(wheel: Path, tmp_path: Path) -> None:
    found = run_from(
        wheel, tmp_path, "from multitok.codebook import native as n; print(n.available(), n.library_path())"
    )
    assert found == f"None {tmp_path / LIBRARY}"


def test_without_a_compiler_it_searches_all_the_same(wheel_without_compiler: Path, tmp_path: Path) -> None:
    assert LIBRARY not in zipfile.ZipFile(wheel_without_compiler).namelist()
    code = """
import numpy as np, multitok.doctor as doctor
from multitok.codebook import nearest_code
codebook = np.arange(12, dtype=np.float32).reshape(4, 3)
print(nearest_code(codebook[[2, 0, 3]] + 1, codebook).tolist())
print(*[finding.fix for finding in doctor.examine() if finding.name == "native"])
"""
    codes, fix = run_from(wheel_without_compiler, tmp_path, code).splitlines()
    assert codes == "[2, 0, 3]"
    assert fix.startswith("install g++, then pip install --force-reinstall")


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
