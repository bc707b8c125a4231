"""Integer stacks of the native library, compiled with sanitizers, give the defined integers and do nothing undefined.

native_sources/stack_exercise.cpp runs random stacks on every path that runs here, by one and by several threads, each
compared with the definition.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from multitok.codebook import native as codebook_native
from multitok.nets import native
from tests.codebook.compiled import compile_program, run_program
from tests.codebook.test_native_sanitizers import SANITIZERS, sanitized_library

EXERCISE = Path(__file__).parent / "native_sources" / "stack_exercise.cpp"


@pytest.mark.slow
def test_random_stacks_with_the_library_in_use(tmp_path: Path) -> None:
    library = codebook_native.library_path()
    if library is None or native.available() is not None:
        pytest.skip(str(native.available()))
    program = compile_program(tmp_path / "stacks", EXERCISE, library)
    assert run_program(program, "300", "0").split() == native.supported_paths()


@pytest.fixture(scope="module", params=SANITIZERS)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exercise, linked with the library, both compiled with one of the sanitizers."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    library, flags = sanitized_library(folder, SANITIZERS[request.param])
    return compile_program(folder / "stacks", EXERCISE, library, flags=flags)


@pytest.mark.slow
@pytest.mark.parametrize("seed", ["1", "2"])
def test_random_stacks_under_sanitizers(program: Path, seed: str) -> None:
    assert "portable" in run_program(program, "150", seed).split()


@pytest.mark.slow
def test_that_the_sanitizers_watch_the_library(program: Path) -> None:
    misuse, seen = {
        "address": ("overrun", "heap-buffer-overflow"),
        "thread": ("race", "data race"),
    }[program.parent.name.rstrip("0123456789")]
    done = subprocess.run([str(program), misuse], capture_output=True, text=True)
    assert done.returncode != 0
    assert seen in done.stderr
    assert "mt_stack_run" in done.stderr
