"""Two gloo ranks with parts of the batches learn what one process learns with the whole ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.quantize import quantizer_ranks as ranks


def test_two_ranks_learn_the_same_as_one(tmp_path: Path) -> None:
    first, second = ranks.run(tmp_path, with_compiler=False)
    for name, build in ranks.EXACT.items():
        assert first[name] == second[name] == ranks.train(build, None), name  # to the bit
    for name, build in ranks.SOFT.items():
        loss, gradients = ranks.entropy(build, None)
        assert first[name][1] == second[name][1]
        assert first[name][1] == pytest.approx(gradients, rel=1e-4, abs=1e-5), name
        # Each rank's own share of the loss is its own; the mean is that of the whole batch.
        assert (first[name][0] + second[name][0]) / 2 == pytest.approx(loss, rel=1e-5)
    assert first["used"] == second["used"] == ranks.used(None)


@pytest.mark.slow
def test_compiled_ranks_stay_together(tmp_path: Path) -> None:
    first, second = ranks.run(tmp_path, with_compiler=True)
    assert first["compiled"] == second["compiled"]
