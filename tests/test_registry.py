"""Kinds: the literal table, plug-ins by entry point, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from multitok import registry
from multitok.errors import MissingExtraError, RegistryError
from multitok.protocol import TokenizerBase
from tests.contract import check_tokenizer

ROOT = Path(__file__).parent.parent


def _pretend_installed(monkeypatch: pytest.MonkeyPatch, *entries: tuple[str, str]) -> None:
    found = [EntryPoint(name, value, registry.ENTRY_POINT_GROUP) for name, value in entries]
    monkeypatch.setattr(registry, "entry_points", lambda group: found)


@pytest.mark.parametrize("kind", sorted(registry.built_in()))
def test_every_kind_in_the_table_is_a_tokenizer_class(kind: str) -> None:
    assert issubclass(registry.tokenizer_class(kind), TokenizerBase)


def test_an_unknown_kind_lists_the_known_ones() -> None:
    with pytest.raises(RegistryError, match=r"'smell-vq'.*audio-dmel.*text-bytes"):
        registry.tokenizer_class("smell-vq")


def test_a_plugin_cannot_replace_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, ("text-bytes", "evil:Bytes"))
    with pytest.raises(RegistryError, match=r"'text-bytes' is registered by 'multitok.*' and by 'evil:Bytes'"):
        registry.tokenizer_class("text-bytes")


def test_two_plugins_cannot_share_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, ("odour", "a:A"), ("odour", "b:B"))
    with pytest.raises(RegistryError, match=r"'odour' is registered by 'a:A' and by 'b:B'"):
        registry.kinds()


def test_one_plugin_seen_twice_on_the_path_is_no_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_installed(monkeypatch, ("odour", "a:A"), ("odour", "a:A"))
    assert registry.kinds()["odour"] == "a:A"


@pytest.mark.parametrize(
    ("module", "fix"), [("cupy", r"pip install 'multitok\[cuda12\]'"), ("nosuchthing", "pip install 'nosuchthing'")]
)
def test_a_missing_package_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, fix: str
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    (tmp_path / f"needs_{module}.py").write_text(f"import {module}.core\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    _pretend_installed(monkeypatch, ("odour", f"needs_{module}:Odour"))
    with pytest.raises(MissingExtraError, match=fix):
        registry.tokenizer_class("odour")


def test_the_example_plugin_passes_the_contract(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples" / "plugin")
    from multitok_codepoints import TextCodepoints

    _pretend_installed(monkeypatch, ("text-codepoints", "multitok_codepoints:TextCodepoints"))
    check_tokenizer(TextCodepoints(), ["Grüße, 東京", "a", ""], tmp_path)


@pytest.mark.slow
def test_installing_the_example_plugin_makes_every_command_know_it(tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*install, str(ROOT / "examples" / "plugin")], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}

    def run(*arguments: str, stdin: str = "") -> str:
        command = [sys.executable, "-m", "multitok.cli", *arguments]
        return subprocess.run(
            command, env=environment, input=stdin, capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout

    assert "text-codepoints" in run("list")
    assert "plug-in multitok_codepoints:TextCodepoints" in run("doctor")
    (tmp_path / "word.txt").write_text("naïve", encoding="utf-8")
    run("encode", "word.txt", "--with", "text-codepoints")
    run("decode", "word.txt.codes", "--out", "back.txt")
    assert (tmp_path / "back.txt").read_text(encoding="utf-8") == "naïve"
