"""The tests of the kernels find mistakes: each of `MUTATIONS`, put into the real sources, makes a search fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cuda.host_device import HostDevice
from tests.cuda.host_module import KernelFault, has_fma
from tests.cuda.mutations import MUTATIONS, Mutation

SOURCES = Path(__file__).parents[2] / "cuda"
QUICK = {"decide: ties to the highest index", "f32: no barrier after a slice", "mma: waits one group too few"}


def ids(mutation: Mutation) -> str:
    return mutation.name


def check_caught(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    if "fused" in mutation.name and not has_fma():
        pytest.skip("this processor has no fused multiply-add")
    change = staticmethod(lambda code: code.replace(mutation.old, mutation.new))
    monkeypatch.setattr(HostDevice, "change", change)
    with pytest.raises((AssertionError, KernelFault)) as caught:
        mutation.shown_by()
    print(f"{mutation.name}: {caught.value}")


def test_mutations_are_of_today() -> None:
    """Each text is in its file once: else the mutation would change nothing, or something else."""
    wrong = {m.name: (SOURCES / m.file).read_text().count(m.old) for m in MUTATIONS}
    assert {name: count for name, count in wrong.items() if count != 1} == {}
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)
    assert {m.name for m in MUTATIONS} >= QUICK


@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.name in QUICK], ids=ids)
def test_some_mistakes_are_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    check_caught(mutation, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.name not in QUICK], ids=ids)
def test_every_mistake_is_found(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    check_caught(mutation, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("check", dict.fromkeys(m.shown_by for m in MUTATIONS))
def test_without_mistakes_nothing_fails(check) -> None:  # type: ignore[no-untyped-def]
    check()
