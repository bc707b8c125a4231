"""The native thread pool keeps its promises; native_sources/pool_exercise.cpp lists them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.codebook.compiled import NATIVE, SOURCES, compile_program, run_program


def test_it_keeps_its_promises(tmp_path: Path) -> None:
    program = compile_program(tmp_path / "pool", SOURCES / "pool_exercise.cpp", NATIVE / "thread_pool.cpp")
    for _ in range(5):
        assert run_program(program) == "kept\n"


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address,undefined"])
def test_it_keeps_them_under_sanitizers(tmp_path: Path, sanitizer: str) -> None:
    flags = ("-O1", "-g", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    program = compile_program(tmp_path / "pool", SOURCES / "pool_exercise.cpp", NATIVE / "thread_pool.cpp", flags=flags)
    for _ in range(5):
        assert run_program(program) == "kept\n"
