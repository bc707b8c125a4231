"""The whole native library, compiled with sanitizers, gives the defined codes and does nothing undefined.

native_sources/search_exercise.cpp searches at random: every path that runs here, types, metrics, shapes, strides,
threads, hard data; each result is compared with the definition. Only the library's own CMakeLists.txt says of what it
is made, so no source can be left out.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from multitok.codebook import native
from tests.codebook.compiled import NATIVE, SOURCES, compile_program, run_program

EXERCISE = SOURCES / "search_exercise.cpp"
SANITIZERS = {"address": "address,undefined,float-cast-overflow", "thread": "thread"}


def test_random_searches_with_the_library_in_use(tmp_path: Path) -> None:
    library = native.library_path()
    if library is None:
        pytest.skip(str(native.available()))
    program = compile_program(tmp_path / "search", EXERCISE, library)
    assert _paths_in(run_program(program, "500", "0")) == {"auto", *native.supported_paths()}


def sanitized_library(folder: Path, sanitizer: str) -> tuple[Path, tuple[str, ...]]:
    """The library compiled with the sanitizer, and the flags for a program that calls it."""
    if shutil.which("cmake") is None or shutil.which("g++") is None:
        pytest.skip("needs cmake and g++")
    defines = (f"-DMULTITOK_SANITIZE={sanitizer}", "-DCMAKE_CXX_FLAGS_RELEASE=-O1", "-DCMAKE_CXX_COMPILER=g++")
    for command in (
        ["cmake", "-S", str(NATIVE), "-B", str(folder), *defines],
        ["cmake", "--build", str(folder), "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / native.LIBRARY, ("-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module", params=SANITIZERS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exercise, linked with the library, both compiled with one of the sanitizers."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    library, flags = sanitized_library(folder, SANITIZERS[request.param])
    return compile_program(folder / "search", EXERCISE, library, flags=flags)


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_random_searches_under_sanitizers(program: Path, seed: str) -> None:
    assert len(_paths_in(run_program(program, "1000", seed))) >= 2


@pytest.mark.slow
def test_that_the_sanitizers_watch_the_library(program: Path) -> None:
    misuse, seen, inside = {
        "address": ("overrun", "heap-buffer-overflow", "mt_codebook_new"),
        "thread": ("race", "data race", "mt_search"),
    }[program.parent.name.rstrip("0123456789")]
    done = subprocess.run([str(program), misuse], capture_output=True, text=True)
    assert done.returncode != 0
    assert seen in done.stderr
    assert inside in done.stderr


def _paths_in(report: str) -> set[str]:
    """Names of the paths that were searched."""
    return {line.split()[0] for line in report.splitlines()}
