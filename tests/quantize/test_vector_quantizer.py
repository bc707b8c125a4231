"""Codebooks that learn: against slow references, and against the ways in which others' have failed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from multitok.errors import InputError, ShapeError, SpecError
from multitok.quantize import VectorQuantizer
from multitok.quantize.gradients import rotate, straight_through, unit_rows
from multitok.quantize.learning import start_codebook
from tests.quantize.kinds import draw


def given(codebook: torch.Tensor, **options: Any) -> VectorQuantizer:
    quantizer = VectorQuantizer(codebook.shape[1], len(codebook), start="given", **{"dead_below": 0.0, **options})
    quantizer.set_codebook(codebook)
    return quantizer


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("metric", ["l2", "cosine", "dot"])
def test_averages_equal_a_loop_over_vectors(metric: str) -> None:
    quantizer = given(draw(0, 10, 3), metric=metric, decay=0.9, epsilon=0.01)
    codebook = quantizer.codebook.double().numpy().copy()
    counts, sums = np.ones(10), codebook.copy()
    for step in range(4):
        vectors = draw(step + 1, 2, 30, 3)
        found = quantizer(vectors)
        hits, added, squares = np.zeros(10), np.zeros((10, 3)), []
        for vector, code in zip(vectors.reshape(-1, 3).double().numpy(), found.codes.flatten().tolist(), strict=True):
            seen = unit(vector[None])[0] if metric == "cosine" else vector
            score = -((vector - codebook) ** 2).sum(axis=1) if metric == "l2" else unit(codebook) @ vector
            score = codebook @ vector if metric == "dot" else score
            assert code == int(score.argmax())
            squares.append(((seen - codebook[code]) ** 2).mean())
            hits[code] += 1
            added[code] += seen
        assert float(found.commitment_loss) == pytest.approx(np.mean(squares), rel=1e-5)
        assert float(found.codebook_loss) == 0
        counts, sums = counts * 0.9 + hits * 0.1, sums * 0.9 + added * 0.1
        smoothed = (counts + 0.01) * counts.sum() / (counts.sum() + 0.1)
        codebook = sums / smoothed[:, None]
        codebook = unit(codebook) if metric == "cosine" else codebook
        np.testing.assert_allclose(quantizer.counts_ema.numpy(), counts, rtol=1e-12)
        np.testing.assert_allclose(quantizer.sums_ema.numpy(), sums, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(quantizer.codebook.numpy(), codebook, rtol=1e-5, atol=1e-6)
        codebook = quantizer.codebook.double().numpy()
    assert quantizer.codebook.dtype == torch.float32
    assert {quantizer.counts_ema.dtype, quantizer.sums_ema.dtype} == {torch.float64}


def kmeans(rows: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """One pass of Lloyd's, by definition; codes without vectors stay."""
    nearest = [int(((row - values) ** 2).sum(axis=1).argmin()) for row in rows]
    return np.stack([rows[np.equal(nearest, i)].mean(axis=0) if i in nearest else v for i, v in enumerate(values)])


def test_the_start_is_k_means_of_the_first_batch() -> None:
    """A start ends at a fixed point of Lloyd's passes, where the clusters are plain."""
    centres = draw(3, 12, 5) * 20
    vectors = centres.repeat_interleave(40, dim=0) + draw(4, 480, 5)
    quantizer = VectorQuantizer(5, 12, start_passes=30)
    assert not bool(quantizer.started)
    quantizer(vectors.reshape(4, 120, 5)[:, :0])  # no vectors: not started
    assert not bool(quantizer.started)
    start_codebook(
        vectors, quantizer.codebook, quantizer.counts_ema, quantizer.sums_ema, quantizer.started, "l2", 30, 0, False
    )
    assert bool(quantizer.started)
    started = quantizer.codebook.clone()
    np.testing.assert_allclose(kmeans(vectors.double().numpy(), started.double().numpy()), started, atol=1e-4)
    torch.testing.assert_close(quantizer.sums_ema / quantizer.counts_ema[:, None], started.double())
    assert float(quantizer.counts_ema.sum()) == pytest.approx(12)
    again = VectorQuantizer(5, 12, start_passes=30)
    found = again(vectors)  # the same start, then one step
    assert torch.equal(found.quantized, started[found.codes[:, 0]])
    error = float(found.commitment_loss)
    sample = given(vectors[torch.randperm(480)[:12]])
    assert error < 0.5 * float(sample.eval()(vectors).commitment_loss)


@pytest.mark.parametrize("learning", ["ema", "gradient"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_start_with_fewer_vectors_than_codes(metric: str, learning: str) -> None:
    quantizer = VectorQuantizer(4, 30, metric=metric, learning=learning)
    vectors = draw(5, 7, 4)
    found = quantizer(vectors)
    target = unit_rows(vectors) if metric == "cosine" else vectors
    torch.testing.assert_close(found.quantized, target)
    assert bool(quantizer.code_vectors().isfinite().all())
    assert bool((quantizer.counts_ema > 0).all())


def test_starting_from_more_vectors_than_a_batch() -> None:
    vectors = torch.cat([draw(6, 500, 3), draw(7, 500, 3) + 100])
    quantizer = VectorQuantizer(3, 20, metric="l2")
    quantizer.start_from(vectors.half())
    assert bool(quantizer.started)
    kept = quantizer.codebook.clone()
    assert 5 < int((kept[:, 0] > 50).sum()) < 15
    quantizer.eval()(vectors)
    quantizer.train()(vectors[:0])
    assert torch.equal(quantizer.codebook, kept)
    with pytest.raises(InputError, match="nan"):
        quantizer.start_from(torch.full((3, 3), math.nan))


@pytest.mark.parametrize("learning", ["ema", "gradient"])
@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_dead_code_comes_back_to_life_and_stays(metric: str, learning: str) -> None:
    """Its averages are reset with it: left as they were, the next step would draw it back to where it died."""
    codebook = draw(8, 16, 4)
    codebook[5:] = -codebook[:1] * 1000 + torch.arange(11)[:, None]  # where no vector is, in any metric
    quantizer = given(codebook, metric=metric, learning=learning, dead_below=0.5, decay=0.9)
    vectors = torch.cat([row + draw(9 + i, 100, 4) / 10 for i, row in enumerate(codebook[:5])])
    place = unit_rows(vectors) if metric == "cosine" else vectors
    revived = None
    for step in range(40):
        before = quantizer.code_vectors().detach().clone()
        found = quantizer(vectors)
        assert torch.equal(found.quantized, before[found.codes[:, 0]])
        if revived is None and step > 10:
            revived = quantizer.code_vectors().detach()[5:].clone()
            # Each is one of the vectors, or near one where it has moved since.
            assert float(torch.cdist(revived, place).min(dim=1).values.max()) < 0.2
    assert float(torch.cdist(quantizer.code_vectors().detach(), place).min(dim=1).values.max()) < 0.2
    if learning == "ema":
        means = quantizer.sums_ema / quantizer.counts_ema[:, None]
        means = unit_rows(means.float()).double() if metric == "cosine" else means
        torch.testing.assert_close(means.float(), quantizer.codebook, rtol=1e-3, atol=1e-3)
    assert quantizer.usage() > 0.8
    assert int(quantizer.steps) == 40


def test_revival_takes_different_vectors_of_the_batch_and_its_averages() -> None:
    codebook = torch.full((6, 2), 50.0) + torch.arange(6)[:, None]
    codebook[0] = 0
    quantizer = given(codebook, dead_below=0.9, decay=0.5)
    vectors = draw(3, 30, 2)
    quantizer(vectors)
    revived = quantizer.codebook[1:]
    assert bool((revived[:, None] == vectors).all(dim=2).any(dim=1).all())
    assert len(revived.unique(dim=0)) == 5
    mean = float(quantizer.counts_ema[1])
    torch.testing.assert_close(quantizer.sums_ema[1:], revived.double() * mean)
    assert mean == pytest.approx((0.5 * 6 + 0.5 * 30) / 6)
    few = given(codebook, dead_below=0.9, decay=0.5)
    few(vectors[:2])  # fewer vectors than dead codes: some wait
    assert int((few.codebook < 40).all(dim=1).sum()) == 3


def test_no_vectors_teach_nothing() -> None:
    quantizer = given(draw(0, 5, 2), dead_below=0.5)
    before = {name: tensor.clone() for name, tensor in quantizer.state_dict().items()}
    found = quantizer(torch.empty(3, 0, 2))
    assert found.codes.shape == (3, 0, 1)
    assert float(found.commitment_loss) == 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in quantizer.state_dict().items())


def test_statistics_of_training() -> None:
    quantizer = given(torch.tensor([[0.0], [1.0], [2.0], [99.0]]), decay=0.0, dead_below=0.0)
    quantizer(torch.tensor([[0.0], [0.1], [1.0], [1.1], [2.0], [2.1]]))
    assert quantizer.dead_codes().tolist() == [3]
    assert quantizer.usage() == 0.75
    assert quantizer.perplexity() == pytest.approx(3)


def test_straight_through_and_rotation_give_the_bits_and_their_gradients() -> None:
    vectors, values = draw(0, 50, 6).requires_grad_(), draw(1, 50, 6)
    values[3] = -0.0
    incoming = draw(2, 50, 6)
    for estimator in (straight_through, rotate):
        assert estimator(vectors, values).detach().numpy().tobytes() == values.numpy().tobytes()
    (through,) = torch.autograd.grad(straight_through(vectors, values), vectors, incoming)
    assert torch.equal(through, incoming)
    (rotated,) = torch.autograd.grad(rotate(vectors, values), vectors, incoming)
    for e, q, g, found in zip(vectors.detach().double(), values.double(), incoming.double(), rotated, strict=True):
        if q.norm() == 0:
            assert torch.equal(found, g.float())
            continue
        a, b = e / e.norm(), q / q.norm()
        m = (a + b) / (a + b).norm()
        matrix = torch.eye(6).double() - 2 * torch.outer(m, m) + 2 * torch.outer(b, a)
        scale = q.norm() / e.norm()
        torch.testing.assert_close(scale * matrix @ e, q)  # it does take the vector onto its code vector
        torch.testing.assert_close(found.double(), scale * matrix.T @ g, rtol=1e-4, atol=1e-5)
    zero = torch.zeros(2, 6, requires_grad=True)
    (at_zero,) = torch.autograd.grad(rotate(zero, values[:2]), zero, incoming[:2])
    assert torch.equal(at_zero, incoming[:2])


def test_unit_rows_do_not_depend_on_their_neighbours() -> None:
    rows = (draw(3, 300, 7) * torch.logspace(-20, 15, 300)[:, None]).requires_grad_()
    found = unit_rows(rows)
    torch.testing.assert_close(found, torch.nn.functional.normalize(rows.double(), dim=1, eps=0).float())
    assert torch.equal(torch.cat([unit_rows(row[None]) for row in rows]), found)
    assert torch.equal(unit_rows(rows[::3]), found[::3])
    assert unit_rows(torch.zeros(2, 3)).tolist() == [[0.0] * 3] * 2
    small = draw(4, 5, 3).double().requires_grad_()
    assert torch.autograd.gradcheck(unit_rows, small)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "manhattan"}, "metric='manhattan': give one of l2, cosine, dot"),
        ({"learning": "sgd"}, "learning='sgd'"),
        ({"start": "zeros"}, "start='zeros'"),
        ({"decay": 1.5}, "decay=1.5: give a share from 0 to 1"),
        ({"dead_below": -1.0}, "dead_below=-1.0"),
        ({"epsilon": 0.0}, "epsilon=0.0"),
        ({"start_passes": 0}, "start_passes=0"),
        ({"codebook_size": 0}, r"codebook sizes \(0,\)"),
        ({"dim": 0}, "dim=0"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        VectorQuantizer(**{"dim": 4, "codebook_size": 8, **options})


def test_codebooks_that_cannot_be_set() -> None:
    quantizer = VectorQuantizer(4, 8)
    with pytest.raises(ShapeError, match=r"codebook given as \[8, 3\]: give a float tensor \[8, 4\]"):
        quantizer.set_codebook(torch.zeros(8, 3))
    with pytest.raises(SpecError, match="NaN"):
        quantizer.set_codebook(torch.full((8, 4), math.nan))
