"""Every example script runs on the sample data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = ("text", "image", "video", "volume", "audio", "series", "sequence")


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SCRIPTS)
def test_modality_script(name: str, tmp_path: Path) -> None:
    out = _run([str(EXAMPLES / f"{name}.py")], tmp_path)
    assert "tokens" in out
    for line in out.splitlines():
        if line.startswith("wrote "):
            assert (tmp_path / line.removeprefix("wrote ")).stat().st_size > 0


def test_demo_then_training(tmp_path: Path) -> None:
    out = _run([str(EXAMPLES / "demo.py"), "--out", "demo"], tmp_path)
    decoded = {path.stem for path in (tmp_path / "demo" / "decoded").iterdir()}
    assert decoded == {"text", "image", "video", "volume", "audio", "series", "sequence"}
    assert "0 items in quarantine" in out
    for column in ("items", "tokens", "tokens/s", "bytes in", "bytes out"):
        assert column in out
    trained = _run([str(EXAMPLES / "train_tiny_transformer.py"), "demo/shards", "--steps", "30"], tmp_path)
    assert "all 30 losses are the same to the last bit; the loss fell" in trained


def test_examples_are_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f"`{path.name}`" in listed
