"""The kernels through nvcc, for every generation of cards: no warning, no spilled register."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from multitok.codebook import cuda_launch

pytestmark = pytest.mark.slow

OLDEST = (12, 8)  # the first that knows sm_100a and sm_120
WHEELS = Path(__file__).parents[2] / "build" / "nvcc"
PACKAGES = ("nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-nvrtc", "nvidia-nvvm")
ARCHITECTURES = ("sm_75", "sm_80", "sm_90a", "sm_100a", "sm_120")


def _version(nvcc: str) -> tuple[int, ...]:
    told = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+)\.(\d+)", told)
    return tuple(map(int, found.groups())) if found else (0,)


def _from_wheels() -> str | None:
    """nvcc of the wheels on PyPI, put into the build folder once."""
    if not any(WHEELS.glob("nvidia/*/bin/nvcc")):
        with tempfile.TemporaryDirectory() as folder:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, *PACKAGES]
            if subprocess.run(pip, capture_output=True, check=False).returncode:
                return None
            WHEELS.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(WHEELS, ignore_errors=True)
            shutil.move(folder, WHEELS)
            Path(folder).mkdir()
    return next((str(path) for path in WHEELS.glob("nvidia/*/bin/nvcc")), None)


@functools.cache
def nvcc() -> str | None:
    """The compiler on PATH where it is new enough, else that of the wheels."""
    on_path = shutil.which("nvcc")
    if on_path and not os.environ.get("MULTITOK_NVCC_FROM_WHEELS") and _version(on_path) >= OLDEST:
        return on_path
    return _from_wheels()


def compile_file(file: str, architecture: str, folder: Path, text: str | None = None) -> str:
    """nvcc's report on a file with all its kernels; fails on errors and warnings."""
    compiler = nvcc()
    if compiler is None:
        pytest.skip("needs nvcc 12.8 or newer, on PATH or from PyPI")
    names = [name for group in cuda_launch.KERNELS[file] for name in group]
    # Templates are compiled where something refers to them.
    used = ", ".join(f"reinterpret_cast<void*>({name})" for name in names)
    source = folder / file
    source.write_text((text or cuda_launch.source(file)) + f"void* kernels[] = {{{used}}};\n")
    command = [compiler, "-std=c++17", f"-arch={architecture}", "-cubin", "-Werror", "all-warnings"]
    command += ["-Xptxas", "-v,-warn-spills", str(source), "-o", str(folder / "kernels.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def check_report(report: str, kernels: int) -> None:
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", report)
    assert len(spills) >= kernels, report
    assert {spill[1:] for spill in spills} == {("0", "0")}, report
    assert "warning" not in report, report


@pytest.mark.parametrize(
    ("file", "architecture"),
    # sm_75 has no tensor cores for bfloat16.
    [(f, a) for f in sorted(cuda_launch.KERNELS) for a in ARCHITECTURES if (f, a) != ("nearest_mma.cu", "sm_75")],
)
def test_no_warning_and_no_spill(file: str, architecture: str, tmp_path: Path) -> None:
    report = compile_file(file, architecture, tmp_path)
    check_report(report, sum(map(len, cuda_launch.KERNELS[file])))


def test_that_test_can_fail(tmp_path: Path) -> None:
    text = cuda_launch.source("nearest_f32.cu")
    unused = text.replace("int which = 0;", "int which = 0; int forgotten = 1;", 1)
    assert unused != text
    with pytest.raises(AssertionError, match="forgotten"):
        compile_file("nearest_f32.cu", "sm_80", tmp_path, unused)
    crowded = text.replace("__launch_bounds__(kThreads, 2)", "__launch_bounds__(kThreads, 8)", 1)
    assert crowded != text
    with pytest.raises(AssertionError):
        check_report(compile_file("nearest_f32.cu", "sm_80", tmp_path, crowded), 1)
