"""Plain torch beside finding the codes: its bound holds, its blocks are bounded, no setting of torch matters."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from multitok.codebook import torch_backend
from multitok.codebook.native import NotFiniteError
from multitok.codebook.torch_backend import TorchCodebook
from tests.codebook import reference
from tests.codebook.families import FAMILIES, draw

pytestmark = pytest.mark.usefixtures("one_thread")

METRICS = ("l2", "cosine", "dot")


def tensors(family: str, dtype: str = "float32", shape: tuple[int, int, int] = (40, 60, 9)) -> tuple[torch.Tensor, ...]:
    return tuple(torch.as_tensor(values) for values in draw(family, dtype, *shape))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_bound_holds(family: str, metric: str) -> None:
    """Float32 scores, with the error of the definition's distances, lie within the tolerance of the true scores."""
    for dtype, shape in (("float32", (30, 40, 9)), ("float32", (20, 30, 150)), ("float64", (30, 40, 9))):
        vectors, codebook = tensors(family, dtype, shape)
        book = TorchCodebook(codebook, metric)
        lifted = book._lift(vectors)
        rows, weights = (
            values.numpy().astype(np.longdouble) for values in (lifted.rows, book._weigh(codebook.double()))
        )
        with np.errstate(invalid="ignore", over="ignore"):
            true = rows @ weights.T
        for precision in (torch.float32, torch.float64):
            error = np.abs(book._scores(lifted, precision).numpy() - true)
            tolerance = book._tolerance(lifted, precision, book._norms).numpy()
            claimed = np.isfinite(tolerance)
            assert (error[claimed] <= tolerance[claimed]).all()
        if family == "gaussian" and dtype == "float32":
            assert claimed.all()


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("metric", METRICS)
def test_scores_may_be_wrong_by_all_that_the_bound_allows(metric: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worse arithmetic than there is: every score off by almost its tolerance, up or down, and wide tolerances."""
    monkeypatch.setattr(torch_backend, "ROUNDOFF", {torch.float32: 2.0**-9, torch.float64: 2.0**-12})
    real = TorchCodebook._scores
    generator = torch.Generator().manual_seed(0)

    def wrong(self: TorchCodebook, lifted: torch_backend._Lifted, precision: torch.dtype) -> torch.Tensor:
        scores = real(self, lifted, torch.float64)
        reach = self._norms.max() if precision == torch.float32 else self._norms
        sign = torch.randint(0, 2, scores.shape, generator=generator) * 2 - 1
        return (scores + 0.95 * sign * self._tolerance(lifted, precision, reach)).to(precision)

    monkeypatch.setattr(TorchCodebook, "_scores", wrong)
    vectors, codebook = tensors("gaussian", shape=(500, 200, 6))
    codes, _ = TorchCodebook(codebook, metric).search(vectors, k, distances=False)
    assert np.array_equal(codes.numpy(), reference.search(vectors, codebook, metric, k).codes)


@pytest.mark.parametrize("metric", METRICS)
def test_float32_settles_most_vectors(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = 0
    real = TorchCodebook._ranks

    def counting(self: TorchCodebook, block: torch.Tensor, row: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        nonlocal pairs
        pairs += len(row)
        return real(self, block, row, code)

    monkeypatch.setattr(TorchCodebook, "_ranks", counting)
    vectors, codebook = tensors("gaussian", shape=(2000, 500, 16))
    codes, _ = TorchCodebook(codebook, metric).search(vectors, 1, distances=False)
    assert np.array_equal(codes.numpy(), reference.search(vectors, codebook, metric).codes)
    assert pairs < 20


@pytest.mark.parametrize("metric", METRICS)
def test_one_far_code_costs_the_others_nothing(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each code has a tolerance of its own in float64, so that few are compared by the definition."""
    largest = 0
    real = TorchCodebook._ranks

    def watching(self: TorchCodebook, block: torch.Tensor, row: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, len(row))
        return real(self, block, row, code)

    monkeypatch.setattr(TorchCodebook, "_ranks", watching)
    vectors, codebook = tensors("gaussian", "float64", shape=(500, 200, 8))
    codebook[3] *= 1e12
    codes, _ = TorchCodebook(codebook, metric).search(vectors, 1, distances=False)
    assert np.array_equal(codes.numpy(), reference.search(vectors, codebook, metric).codes)
    assert largest <= 1000  # of 100,000


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("block", [1, 50, 1000])
def test_blocks_do_not_matter(metric: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for family in ("integers", "mixed norms"):
        vectors, codebook = tensors(family)
        truth = reference.search(vectors, codebook, metric, 4)
        whole = TorchCodebook(codebook, metric).search(vectors, 4)
        monkeypatch.setattr(torch_backend, "BLOCK_ON_CPU", block)
        monkeypatch.setattr(torch_backend, "LEAST_ROWS", 4)
        parts = TorchCodebook(codebook, metric).search(vectors, 4)
        assert np.array_equal(parts[0].numpy(), truth.codes)
        for left, right in zip(parts, whole, strict=True):
            assert left is not None
            assert right is not None
            assert torch.equal(left, right)
        monkeypatch.undo()


def test_the_row_in_a_later_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend, "BLOCK_ON_CPU", 100)
    monkeypatch.setattr(torch_backend, "LEAST_ROWS", 4)
    vectors, codebook = tensors("gaussian")
    book = TorchCodebook(codebook, "l2")
    vectors[33, 1] = codebook[47, 0] = math.nan
    with pytest.raises(NotFiniteError, match="row 33"):
        book.search(vectors, 1)
    with pytest.raises(NotFiniteError, match="row 47"):
        TorchCodebook(codebook, "l2")


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(made, torch.Tensor):
                self.nbytes = max(self.nbytes, made.numel() * made.itemsize)
        return result


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("family", ["gaussian", "one code", "integers", "largest"])
def test_memory_is_bounded(metric: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend, "BLOCK_ON_CPU", 2**12)
    vectors, codebook = tensors(family, shape=(3000, 100, 2))
    book = TorchCodebook(codebook, metric)
    with LargestTensor() as largest:
        book.search(vectors, 3)
    # The vectors given, or the results; or 16 bytes (the two indices of a pair) for each score of a block.
    assert largest.nbytes <= max(3000 * 3 * 8, 16 * max(2**12, 64 * 100))


def contexts() -> dict[str, AbstractContextManager[Any]]:
    return {
        "autocast to bfloat16": torch.autocast("cpu", dtype=torch.bfloat16),
        "autocast to float16": torch.autocast("cpu", dtype=torch.float16),
        "inference mode": torch.inference_mode(),
        "another default device": torch.device("meta"),
        "gradients": torch.enable_grad(),
    }


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("context", contexts())
def test_contexts_do_not_matter(context: str, metric: str) -> None:
    vectors, codebook = tensors("tight and offset")
    truth = reference.search(vectors, codebook, metric, 3)
    vectors.requires_grad_()
    with contexts()[context]:
        codes, ranks = TorchCodebook(codebook, metric).search(vectors, 3)
    assert np.array_equal(codes.numpy(), truth.codes)
    assert ranks is not None
    assert not ranks.requires_grad


def test_deterministic_mode_refuses_nothing() -> None:
    vectors, codebook = tensors("integers")
    torch.use_deterministic_algorithms(True)
    try:
        codes, _ = TorchCodebook(codebook, "l2").search(vectors, 3)
    finally:
        torch.use_deterministic_algorithms(False)
    assert np.array_equal(codes.numpy(), reference.search(vectors, codebook, "l2", 3).codes)


SEARCH = """
import numpy as np, torch
from multitok.codebook.native import NotFiniteError
from multitok.codebook.torch_backend import TorchCodebook, _float32_is_exact
from tests.codebook import reference
from tests.codebook.families import draw
for setting in {settings}:
    exec(setting)
    vectors, codebook = (torch.from_numpy(values) for values in draw("offset", "float32", 60, 100, 64))
    for metric in ("l2", "cosine", "dot"):
        codes, _ = TorchCodebook(codebook, metric).search(vectors, 1, distances=False)
        assert np.array_equal(codes.numpy(), reference.search(vectors, codebook, metric).codes)
    print(_float32_is_exact(torch.device("cpu")), _float32_is_exact(torch.device("cuda")))
"""
HAS_NEW_SETTINGS = hasattr(torch.backends.mkldnn, "matmul")
OLDER = {  # whether float32 products are exact on a CPU and a GPU after each setting
    "pass": (True, True),
    "torch.set_float32_matmul_precision('medium')": (False, False),
    "torch.set_float32_matmul_precision('high')": (False, False),
    "torch.set_float32_matmul_precision('highest')": (True, True),
    "torch.backends.cuda.matmul.allow_tf32 = True": (HAS_NEW_SETTINGS, False),
}
NEWER = {
    "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'": (False, True),
    "torch.backends.cuda.matmul.fp32_precision = 'tf32'": (False, False),
    "torch.backends.mkldnn.matmul.fp32_precision = 'ieee'": (True, False),
    "torch.backends.cuda.matmul.fp32_precision = 'ieee'": (True, True),
    "torch.backends.fp32_precision = 'tf32'; torch.backends.mkldnn.matmul.fp32_precision = 'none'": (False, True),
}


@pytest.mark.parametrize("settings", [OLDER, NEWER])
def test_settings_of_precision(settings: dict[str, tuple[bool, bool]]) -> None:
    """In processes of their own, since torch's older and newer settings of one thing do not mix."""
    if settings is NEWER and not HAS_NEW_SETTINGS:
        pytest.skip("needs torch 2.9")
    run = subprocess.run(
        [sys.executable, "-c", SEARCH.format(settings=list(settings))],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parent.parent.parent,
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [f"{cpu} {cuda}" for cpu, cuda in settings.values()]


@pytest.mark.parametrize(
    ("name", "value", "exact"),
    [
        ("NVIDIA_TF32_OVERRIDE", "1", False),
        ("NVIDIA_TF32_OVERRIDE", "0", True),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16", False),
        ("ONEDNN_DEFAULT_FPMATH_MODE", "STRICT", True),
    ],
)
def test_variables_of_precision(name: str, value: str, exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert torch_backend._float32_is_exact(torch.device("cpu")) == exact
    used = []
    real = TorchCodebook._scores
    monkeypatch.setattr(
        TorchCodebook,
        "_scores",
        lambda self, lifted, precision: used.append(precision) or real(self, lifted, precision),
    )
    vectors, codebook = tensors("gaussian")
    codes, _ = TorchCodebook(codebook, "l2").search(vectors, 1, distances=False)
    assert (torch.float32 in used) == exact
    assert np.array_equal(codes.numpy(), reference.search(vectors, codebook).codes)
