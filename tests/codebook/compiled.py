"""C++ test programs: compiled by the tests that run them, with the native library's own headers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parent.parent.parent / "native"
SOURCES = Path(__file__).parent / "native_sources"
# As in native/CMakeLists.txt: the definition of a distance has no fused multiply-add.
FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-ffp-contract=off", f"-I{NATIVE}", "-pthread")


def compile_program(to: Path, *inputs: Path, flags: tuple[str, ...] = ("-O2",)) -> Path:
    """Compile and link `inputs` to the program `to`; skips the test where there is no g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("needs g++")
    libraries = {path.parent for path in inputs if path.suffix == ".so"}
    search_at_run_time = [f"-Wl,-rpath,{folder}" for folder in libraries]
    command = [compiler, *FLAGS, *flags, *map(str, inputs), *search_at_run_time, "-o", str(to)]
    compiled = subprocess.run(command, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stderr
    return to


def run_program(*command: str | Path, timeout_s: float = 300) -> str:
    """What the program prints; fails with it where the program does."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
