"""Residual and grouped quantisers: levels, gradients, dropout and beams against loops and exhaustive search."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from multitok.errors import ShapeError, SpecError
from multitok.quantize import FSQ, GroupedVQ, Quantizer, ResidualFSQ, ResidualQuantizer, ResidualVQ, VectorQuantizer
from tests.quantize.kinds import draw


def level(seed: int, size: int, dim: int = 4, scale: float = 1.0, **options: Any) -> VectorQuantizer:
    quantizer = VectorQuantizer(dim, size, start="given", **{"dead_below": 0.0, **options})
    quantizer.set_codebook(draw(seed, size, dim) * scale)
    return quantizer


def make(sizes: tuple[int, ...] = (8, 5, 6), **options: Any) -> ResidualVQ:
    return ResidualVQ([level(k, size, scale=2.0**-k) for k, size in enumerate(sizes)], **options)


def test_equals_the_numpy_quantiser() -> None:
    ours = make()
    theirs = ResidualQuantizer([level_.codebook.numpy() for level_ in ours._used(3)])
    vectors = draw(9, 50, 4)
    codes = ours.encode(vectors)
    assert codes.tolist() == theirs.encode(vectors.numpy()).tolist()
    for k in (1, 2, 3):
        assert torch.equal(ours.encode(vectors, num_codebooks=k), codes[:, :k])
        assert ours.decode(codes[:, :k]).numpy().tobytes() == theirs.decode(codes.int().numpy(), k).tobytes()
        found = ours.eval()(vectors, num_codebooks=k)
        assert torch.equal(found.codes, codes[:, :k])
        assert torch.equal(found.quantized, ours.decode(codes[:, :k]))


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_gradients_and_losses_are_those_of_a_loop(learning: str) -> None:
    """One straight-through gradient however many levels; each level's loss reaches its codebook and the vectors."""
    quantizer = ResidualVQ([level(k, 8, scale=2.0**-k, learning=learning) for k in range(3)])
    vectors = draw(1, 20, 4).requires_grad_()
    codebooks = [each.codebook.detach().clone().requires_grad_() for each in quantizer._used(3)]
    residual, commitment, codebook_loss = vectors, torch.zeros(()), torch.zeros(())
    for table in codebooks:
        picked = table[torch.cdist(residual, table).argmin(dim=1)]
        commitment = commitment + (residual - picked.detach()).square().mean() / 3
        codebook_loss = codebook_loss + (residual.detach() - picked).square().mean() / 3
        residual = residual - picked.detach()
    found = quantizer(vectors)
    incoming = draw(2, 20, 4)
    assert torch.equal(torch.autograd.grad(found.quantized, vectors, incoming, retain_graph=True)[0], incoming)
    torch.testing.assert_close(found.commitment_loss, commitment)
    expected = torch.autograd.grad(commitment, vectors)
    torch.testing.assert_close(torch.autograd.grad(found.commitment_loss, vectors, retain_graph=True), expected)
    if learning == "ema":
        assert float(found.codebook_loss) == 0
        return
    torch.testing.assert_close(found.codebook_loss, codebook_loss)
    tables = [each.codebook for each in quantizer._used(3)]
    for other in (found.commitment_loss, found.quantized.sum()):  # which codebooks do not learn from
        unused = torch.autograd.grad(other, tables, retain_graph=True, allow_unused=True)
        assert unused == (None, None, None)
    given_ = torch.autograd.grad(found.codebook_loss, tables)
    torch.testing.assert_close(given_, torch.autograd.grad(codebook_loss, codebooks))


def test_one_batch_teaches_each_level_its_own_residuals() -> None:
    quantizer, alone = make(), make()
    vectors = draw(3, 60, 4)
    quantizer(vectors)
    residual = vectors
    for each, other in zip(quantizer._used(3), alone._used(3), strict=True):
        values = other.decode(other.encode(residual))
        other(residual)
        for name, tensor in each.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name])
        residual = residual - values


@pytest.mark.parametrize("kind", ["vq", "fsq"])
def test_quantiser_dropout(kind: str) -> None:
    torch.manual_seed(0)
    quantizer: Quantizer = make(dropout=0.5) if kind == "vq" else ResidualFSQ([5, 4, 3, 2], 3, dropout=0.5)
    whole = make() if kind == "vq" else quantizer
    vectors = draw(4, 400, 3, 4)
    full = quantizer.encode(vectors)
    found = quantizer(vectors)
    used = (found.codes >= 0).sum(dim=-1)
    assert torch.equal(used, used[:, :1].expand(-1, 3))  # one draw for an item
    shares = torch.bincount(used[:, 0], minlength=4) / 400
    torch.testing.assert_close(shares, torch.tensor([0, 1 / 6, 1 / 6, 4 / 6]), atol=0.08, rtol=0)
    levels = torch.arange(3)
    assert torch.equal(found.codes, torch.where(levels < used[..., None], full, -1))
    for i in range(400):
        k = int(used[i, 0])
        assert torch.equal(whole.decode(full[i, :, :k]), found.quantized[i])
    if kind == "vq":
        assert torch.equal(make().decode(found.codes), found.quantized)
        # Every level learns from all items, dropped or not.
        plain = make()
        plain(vectors)
        for name, tensor in quantizer.state_dict().items():
            assert torch.equal(tensor, plain.state_dict()[name])
    assert bool((quantizer.eval()(vectors).codes >= 0).all())
    assert bool((quantizer.train()(vectors, num_codebooks=2).codes >= 0).all())
    assert quantizer(vectors[0, 0]).quantized.shape == (4,)


def test_dropped_levels_have_no_loss() -> None:
    quantizer = make(dropout=1.0).train()
    reference = make().eval()
    torch.manual_seed(3)
    vectors = draw(5, 12, 4)
    found = quantizer(vectors)
    used, residual, total = (found.codes >= 0).sum(dim=1), vectors, torch.zeros(())
    for k, each in enumerate(reference._used(3)):
        rest = residual - each.decode(each.encode(residual))
        kept = rest[used > k]
        total = total + (kept.square().mean() if len(kept) else 0) / 3
        residual = rest
    torch.testing.assert_close(found.commitment_loss, total)


def test_a_number_of_levels_for_each_item() -> None:
    vectors, counts = draw(6, 3, 5, 4), torch.tensor([2, 3, 1])
    for training in (True, False):
        quantizer = make(dropout=0.5).train(training)
        full = make().encode(vectors)
        found = quantizer(vectors, counts)
        for item, count in enumerate(counts.tolist()):
            assert torch.equal(found.codes[item, :, :count], full[item, :, :count])
            assert bool((found.codes[item, :, count:] == -1).all())
            assert torch.equal(make().decode(full[item, :, :count]), found.quantized[item])
    for wrong in (torch.tensor([2, 3]), torch.ones(3), torch.tensor([[1], [1], [1]])):
        with pytest.raises(ShapeError, match="one integer for each item"):
            make()(vectors, wrong)
    with pytest.raises(SpecError, match="num_codebooks=4"):
        make()(vectors, torch.tensor([1, 4, 1]))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(2, 16), st.sampled_from([(6, 5), (3, 4, 4), (7,), (2, 2, 2, 2)]))
def test_beams_against_a_slow_search(seed: int, beam: int, sizes: tuple[int, ...]) -> None:
    quantizer = make(sizes)
    vectors = draw(seed, 5, 4).round(decimals=1)
    codes = quantizer.encode(vectors, beam=beam)
    tables = [each.codebook for each in quantizer._used(len(sizes))]
    for vector, found in zip(vectors, codes.tolist(), strict=True):
        kept: list[tuple[list[int], torch.Tensor]] = [([], vector)]
        for table in tables:
            candidates = []
            for rank, (prefix, rest) in enumerate(kept):
                errors = (rest.double() - table.double()).square()
                total = [float(sum(row.tolist())) for row in errors]  # in the order of D
                candidates += [(total[c], rank, c, [*prefix, c], rest - table[c]) for c in range(len(table))]
            candidates.sort(key=lambda each: each[:3])
            kept = [(prefix, rest) for *_, prefix, rest in candidates[:beam]]
        assert found == kept[0][0]


def test_wide_beams_are_exhaustive_and_one_is_greedy() -> None:
    quantizer = make((16, 7))
    vectors = draw(6, 40, 4)
    assert torch.equal(quantizer.encode(vectors, beam=1), quantizer.encode(vectors))
    codes = quantizer.encode(vectors.reshape(4, 10, 4), beam=16).reshape(-1, 2)
    every = torch.tensor(list(itertools.product(range(16), range(7))))
    nearest = torch.cdist(vectors.double(), quantizer.decode(every).double()).argmin(dim=1)
    assert torch.equal(codes, every[nearest])
    errors = [
        float((quantizer.decode(quantizer.encode(vectors, beam=b)) - vectors).square().mean()) for b in (1, 2, 4, 16)
    ]
    assert errors[3] < errors[0]
    assert quantizer.encode(vectors[:0], beam=4).shape == (0, 2)


def test_beams_do_not_depend_on_their_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    quantizer, vectors = make(), draw(7, 33, 4)
    expected = quantizer.encode(vectors, beam=3)
    monkeypatch.setattr("multitok.quantize.residual_vq.BEAM_VALUES", 100)
    assert torch.equal(quantizer.encode(vectors, beam=3), expected)


def test_equal_candidates_keep_their_order() -> None:
    twins = VectorQuantizer(1, 4, start="given")
    twins.set_codebook(torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]))
    quantizer = ResidualVQ([twins, twins])
    assert quantizer.encode(torch.zeros(1, 1), beam=4).tolist() == [[0, 2]]


def test_levels_start_one_after_the_other() -> None:
    quantizer = ResidualVQ([VectorQuantizer(4, size) for size in (16, 16)])
    vectors = draw(8, 500, 4)
    quantizer.start_from(vectors)
    errors = [float((quantizer.eval()(vectors, k).quantized - vectors).square().mean()) for k in (1, 2)]
    assert errors[1] < 0.75 * errors[0] < 0.75
    again = ResidualVQ([VectorQuantizer(4, size) for size in (16, 16)])
    again(vectors)
    assert all(bool(each.started) for each in again._used(2))


def test_groups_are_quantised_apart() -> None:
    parts: list[Quantizer] = [level(0, 6, dim=3), FSQ([5, 4]), make((4, 3))]
    quantizer = GroupedVQ(parts).eval()
    vectors = draw(9, 30, 9)
    found = quantizer(vectors)
    assert quantizer.codebook_sizes == (6, 20, 4, 3)
    assert quantizer.dim == 9
    alone = [each(part) for each, part in zip(parts, vectors.split([3, 2, 4], dim=1), strict=True)]
    assert torch.equal(found.codes, torch.cat([each.codes for each in alone], dim=1))
    assert torch.equal(found.quantized, torch.cat([each.quantized for each in alone], dim=1))
    expected = sum(each.commitment_loss * n / 9 for each, n in zip(alone, (3, 2, 4), strict=True))
    torch.testing.assert_close(found.commitment_loss, expected)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResidualVQ([]), "no levels given"),
        (lambda: ResidualVQ([FSQ([5])]), "level 0 is a FSQ: give VectorQuantizer or SimVQ"),
        (lambda: ResidualVQ([level(0, 3), level(0, 3, dim=5)]), "level 1 has D = 5, level 0 has D = 4"),
        (lambda: make(dropout=1.5), "dropout=1.5"),
        (lambda: GroupedVQ([]), "no groups given"),
        (lambda: GroupedVQ([torch.nn.Identity()]), "group 0 is a Identity"),
        (lambda: make()(draw(0, 2, 4), num_codebooks=4), "num_codebooks=4: this quantiser allows 1 to 3"),
        (lambda: make().encode(draw(0, 2, 4), num_codebooks=0), "num_codebooks=0"),
        (lambda: make().encode(draw(0, 2, 4), beam=17), "beam=17: give 1 to 16"),
        (
            lambda: ResidualVQ([level(0, 3, metric="cosine")]).encode(draw(0, 2, 4), beam=2),
            "levels have the metric cosine: give beam=1",
        ),
    ],
)
def test_what_cannot_be(build: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build()


def test_codes_of_the_wrong_shape() -> None:
    for codes in (torch.zeros(2, 0).long(), torch.zeros(2, 4).long(), torch.zeros(2, 2)):
        with pytest.raises(ShapeError, match=r"give an integer tensor \[..., k\], 1 <= k <= 3"):
            make().decode(codes)
