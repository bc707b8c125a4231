"""The torch operators against the definition of the search and an explicit straight-through estimator."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import multitok.codebook
from multitok.codebook import nearest_code, quantize_straight_through, torch_ops
from multitok.errors import InputError, ShapeError, SpecError
from tests.codebook import reference

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
METRICS = ["l2", "cosine", "dot"]
COMPILERS = [
    "aot_eager",
    pytest.param(
        "inductor",
        marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++")],
    ),
]


def draw(seed: int, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def expected_codes(vectors: torch.Tensor, codebook: torch.Tensor, metric: str = "l2") -> torch.Tensor:
    found = reference.search(vectors.reshape(-1, vectors.shape[-1]), codebook, metric).codes
    return torch.from_numpy(found).reshape(vectors.shape[:-1])


def explicit(vectors: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Straight-through estimation as it is written by hand, in float64 throughout."""
    codes = expected_codes(vectors, codebook)
    wide = vectors.double()
    return nn.functional.embedding(codes, codebook.double()) + (wide - wide.detach()), codes


class Toy(nn.Module):
    """A quantising autoencoder."""

    def __init__(self, metric: str = "l2", size: int = 40) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.decoder = nn.Linear(6, 4), nn.Linear(4, 6)
        self.codebook = nn.Parameter(torch.randn(size, 4))
        self.metric = metric

    def forward(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        vectors = self.encoder(signal)
        quantized, codes = quantize_straight_through(vectors, self.codebook, metric=self.metric)
        return self.decoder(quantized), (quantized - vectors.detach()).square().mean(), codes


@pytest.fixture
def fresh() -> None:
    """Forget what other tests compiled."""
    torch.compiler.reset()


def gradients(model: nn.Module, run: Callable[..., Any], signal: torch.Tensor) -> list[torch.Tensor]:
    model.zero_grad()
    output, loss, codes = run(signal)
    (output.square().mean() + loss).backward()
    return [output.detach(), codes, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(5,), (0, 5), (7, 5), (2, 3, 4, 5)])
def test_codes_equal_the_definition(metric: str, shape: tuple[int, ...]) -> None:
    for dtype in DTYPES:
        vectors, codebook = draw(0, *shape, dtype=dtype), draw(1, 20, 5)
        expected = expected_codes(vectors, codebook, metric)
        assert torch.equal(torch.ops.multitok.nearest_code(vectors, codebook, metric), expected)
        quantized, codes = quantize_straight_through(vectors, codebook, metric=metric)
        assert torch.equal(codes, expected)
        assert torch.equal(quantized, codebook[expected])


@pytest.mark.parametrize(
    ("vectors", "codebook"),
    [
        (draw(2, 3, 7, 5), draw(3, 20, 5)),
        (draw(2, 5, 8, 6).mT[:, ::2, ::2], draw(3, 4, 20).mT),
        (draw(2, 5), draw(3, 20, 5)),
        (draw(2, 0, 5), draw(3, 20, 5)),
        (draw(2, 6, 5, dtype=torch.float16), draw(3, 20, 5)),
        (draw(2, 6, 5), draw(3, 20, 5, dtype=torch.bfloat16)),
    ],
    ids=["batch", "strided", "one vector", "none", "half vectors", "half codebook"],
)
def test_the_operators_keep_the_rules_of_torch(vectors: torch.Tensor, codebook: torch.Tensor) -> None:
    vectors, codebook = vectors.detach().requires_grad_(), codebook.detach().requires_grad_()
    torch.library.opcheck(torch_ops.nearest_code, (vectors, codebook, "cosine"), {"backend": "torch"})
    torch.library.opcheck(torch_ops.quantize, (vectors, codebook))
    torch.library.opcheck(torch_ops.sum_by_code, (vectors, torch.zeros(vectors.shape[:-1]).long(), 4))


@pytest.mark.parametrize("vectors_dtype", DTYPES)
@pytest.mark.parametrize("codebook_dtype", DTYPES)
def test_result_and_gradients_have_their_dtypes(vectors_dtype: torch.dtype, codebook_dtype: torch.dtype) -> None:
    vectors = draw(4, 30, 5, dtype=vectors_dtype).requires_grad_()
    codebook = draw(5, 9, 5, dtype=codebook_dtype).requires_grad_()
    quantized, codes = quantize_straight_through(vectors, codebook)
    assert (quantized.dtype, codes.dtype) == (codebook_dtype, torch.int64)
    assert not codes.requires_grad
    assert torch.equal(quantized, codebook[codes])
    # Small integers add exactly in every dtype, so the gradients have to be equal, not near.
    incoming = torch.randint(-3, 4, quantized.shape).to(codebook_dtype)
    quantized.backward(incoming)
    assert vectors.grad is not None
    assert codebook.grad is not None
    assert torch.equal(vectors.grad, incoming.to(vectors_dtype))
    assert torch.equal(codebook.grad, torch.zeros(9, 5, dtype=codebook_dtype).index_add(0, codes, incoming))


def test_first_and_second_derivatives_equal_the_explicit_estimator() -> None:
    inputs = draw(6, 4, 10, 3).double().requires_grad_(), draw(7, 8, 3).double().requires_grad_()
    weight = draw(8, 4, 10, 3).double()
    found = []
    for estimator in (quantize_straight_through, explicit):
        quantized, _ = estimator(*inputs)
        first = torch.autograd.grad((quantized * weight).pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(g.pow(2).sum() for g in first), inputs)
        found.append([*first, *second])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours.abs().max() > 0.1


def test_only_the_gradients_asked_for() -> None:
    vectors, codebook = draw(9, 6, 3).requires_grad_(), draw(10, 4, 3).requires_grad_()
    quantize_straight_through(vectors, codebook.detach())[0].sum().backward()
    assert vectors.grad is not None
    assert codebook.grad is None
    vectors.grad = None
    quantize_straight_through(vectors.detach(), codebook)[0].sum().backward()
    assert vectors.grad is None
    assert codebook.grad is not None


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from(DTYPES))
def test_codebook_gradients_do_not_depend_on_the_order(seed: int, count: int, dtype: torch.dtype) -> None:
    values = draw(seed, count, 3, dtype=dtype)
    codes = torch.randint(0, 4, (count,), generator=torch.Generator().manual_seed(seed))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    sums = torch_ops.sum_by_code(values, codes, 5)
    assert torch.equal(torch_ops.sum_by_code(values[order], codes[order], 5), sums)
    exact = torch.zeros(5, 3, dtype=torch.float64).index_add(0, codes, values.double())
    torch.testing.assert_close(sums.double(), exact, rtol=torch.finfo(dtype).eps, atol=count**2 * 1e-17)


def test_gradients_that_are_not_finite_reach_their_codes_only() -> None:
    """Scaled gradients of mixed precision overflow; whoever scales them has to see it."""
    infinite = float("inf")
    values = torch.tensor(
        [[1.0, 2.0], [infinite, 3.0], [infinite, -infinite], [-infinite, infinite], [4.0, float("nan")]]
    )
    sums = torch_ops.sum_by_code(values, torch.tensor([0, 1, 2, 2, 3]), 5)
    assert sums.isnan().tolist() == [[False, False], [False, False], [True, True], [False, True], [False, False]]
    assert sums[0].tolist() == [1, 2]
    assert sums[1].tolist() == [infinite, 3]
    assert sums[3, 0].tolist() == 4
    assert sums[4].tolist() == [0, 0]


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("training", [True, False])
def test_compiles_without_a_break(fresh: None, compiler: str, training: bool) -> None:
    model = Toy().train(training)
    compiled = torch.compile(model, fullgraph=True, backend=compiler, dynamic=True)
    with torch.set_grad_enabled(training), torch._dynamo.config.patch(error_on_recompile=True):
        for count in (12, 31, 5):
            signal = draw(count, 2, count, 6)
            if training:
                found, expected = (gradients(model, run, signal) for run in (compiled, model))
            else:
                found, expected = (list(run(signal)) for run in (compiled, model))
            for left, right in zip(found, expected, strict=True):
                torch.testing.assert_close(left, right)


@pytest.mark.parametrize("metric", METRICS)
def test_nearest_code_compiles(fresh: None, metric: str) -> None:
    def codes_of(vectors: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
        return nearest_code(vectors * 2, codebook, metric=metric) + 1

    compiled = torch.compile(codes_of, fullgraph=True, backend="aot_eager", dynamic=True)
    for count in (3, 10):
        vectors, codebook = draw(11, count, 4), draw(12, 30, 4)
        assert torch.equal(compiled(vectors, codebook), expected_codes(vectors * 2, codebook, metric) + 1)


def test_exports_with_a_dynamic_dimension() -> None:
    model = Toy().eval()
    length = torch.export.Dim("length", min=2, max=4096)
    program = torch.export.export(model, (draw(13, 3, 17, 6),), dynamic_shapes={"signal": {1: length}})
    assert "multitok.quantize" in program.graph_module.code
    for count in (2, 17, 90):
        signal = draw(count, 3, count, 6)
        for left, right in zip(program.module()(signal), model(signal), strict=True):
            torch.testing.assert_close(left, right)


def test_shapes_that_do_not_fit_are_refused_when_compiled(fresh: None) -> None:
    compiled = torch.compile(quantize_straight_through, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="vectors and codebook differ in D"):
        compiled(draw(0, 3, 4), draw(1, 3, 5))


def inputs_rounded_apart() -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors and codes that differ by less than the steps of half precision."""
    return 1 + draw(14, 200, 8) * 1e-4, 1 + draw(15, 16, 8) * 1e-4


def scores_rounded_apart() -> tuple[torch.Tensor, torch.Tensor]:
    """So many codes in few dimensions that scores rounded to half precision rank some of them wrongly."""
    return draw(16, 4000, 3), draw(17, 500, 3)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("data", [inputs_rounded_apart, scores_rounded_apart])
def test_autocast_does_not_round(
    half: torch.dtype, metric: str, data: Callable[[], tuple[torch.Tensor, torch.Tensor]]
) -> None:
    vectors, codebook = data()
    expected = expected_codes(vectors, codebook, metric)
    assert not torch.equal(expected_codes(vectors.to(half), codebook.to(half), metric), expected)
    with torch.autocast("cpu", dtype=half):
        assert (vectors @ codebook.T).dtype == half  # autocast is at work
        for backend in ("auto", "torch"):
            assert torch.equal(nearest_code(vectors, codebook, metric=metric, backend=backend), expected)
            assert torch.equal(torch.ops.multitok.nearest_code(vectors, codebook, metric, backend), expected)
        quantized, codes = quantize_straight_through(vectors, codebook, metric=metric)
        assert torch.equal(codes, expected)
        assert quantized.dtype == torch.float32
        assert torch.equal(quantized, codebook[expected])


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("compiled", [False, True])
def test_training_in_autocast(fresh: None, half: torch.dtype, compiled: bool) -> None:
    """The encoder's vectors are halves and are taken as such; the codebook and its gradients stay in float32."""
    model, signal = Toy(), draw(16, 50, 6)
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_hook(lambda *given: seen.append(given[-1].detach()))
    run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
    with torch.autocast("cpu", dtype=half):
        output, loss, codes = run(signal)
    (output.float().square().mean() + loss).backward()
    if not compiled:
        assert seen[0].dtype == half
        assert torch.equal(codes, expected_codes(seen[0], model.codebook))
    assert model.codebook.grad is not None
    assert model.codebook.grad.dtype == torch.float32
    assert model.encoder.weight.grad is not None
    assert model.encoder.weight.grad.abs().max() > 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Callable[[], Any]) -> None:
    model, signal = Toy(), draw(17, 20, 6)
    expected = [each.detach() for each in model(signal)]
    with mode():
        found = model(signal)
        vectors = model.encoder(signal)  # in inference mode an inference tensor
        assert torch.equal(nearest_code(vectors, model.codebook), expected[2])
    for left, right in zip(found, expected, strict=True):
        assert not left.requires_grad
        assert torch.equal(left, right)


def test_functional_call() -> None:
    model, signal = Toy(), draw(18, 20, 6)
    other = {name: p.detach().flip(0).requires_grad_() for name, p in model.named_parameters()}
    _, loss, codes = torch.func.functional_call(model, other, (signal,))
    vectors = nn.functional.linear(signal, other["encoder.weight"], other["encoder.bias"])
    assert torch.equal(codes, expected_codes(vectors, other["codebook"]))
    loss.backward()
    assert other["codebook"].grad is not None
    assert model.codebook.grad is None


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_deterministic_mode_refuses_nothing(deterministic: None) -> None:
    model, signal = Toy(), draw(19, 20, 6)
    once, again = (gradients(model, model, signal) for _ in range(2))
    assert all(torch.equal(left, right) for left, right in zip(once, again, strict=True))


@pytest.mark.parametrize("in_dims", [(0, None), (1, None), (None, 0), (0, 2)])
def test_vmap(in_dims: tuple[int | None, int | None]) -> None:
    vectors, codebook = draw(20, 3, 3, 4), draw(21, 3, 4, 3)
    if in_dims[0] is None:
        vectors = vectors[0]
    if in_dims[1] is None:
        codebook = codebook[0].T
    elif in_dims[1] == 0:
        codebook = codebook.mT
    found = torch.vmap(torch.ops.multitok.nearest_code, in_dims)(vectors, codebook)
    expected = [
        expected_codes(
            vectors if in_dims[0] is None else vectors.select(in_dims[0], i),
            codebook if in_dims[1] is None else codebook.select(in_dims[1], i),
        )
        for i in range(3)
    ]
    assert torch.equal(found, torch.stack(expected))


def test_what_cannot_be() -> None:
    with pytest.raises(ShapeError, match="vectors given as list: give a torch tensor"):
        quantize_straight_through([[1.0]], draw(0, 2, 1))  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="codebook given as ndarray: give a torch tensor"):
        quantize_straight_through(draw(0, 2, 1), draw(0, 2, 1).numpy())  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="D = 2"):
        quantize_straight_through(draw(0, 3, 2), draw(0, 3, 1))
    with pytest.raises(SpecError, match="manhattan"):
        quantize_straight_through(draw(0, 3, 2), draw(0, 3, 2), metric="manhattan")
    vectors = draw(0, 4, 2)
    vectors[2, 1] = float("nan")
    with pytest.raises(InputError, match=r"vectors\[2, 1\] is nan"):
        quantize_straight_through(vectors, draw(0, 3, 2))


def test_importing_the_package_does_not_load_torch() -> None:
    program = "import sys, multitok.codebook, multitok.quantize; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert multitok.codebook.quantize_straight_through is torch_ops.quantize_straight_through


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_gpu_gives_the_same_bits(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    found = []
    for device in ("cpu", "cuda"):
        vectors = draw(22, 5000, 16, dtype=dtype).to(device).requires_grad_()
        codebook = draw(23, 200, 16).to(device).requires_grad_()
        quantized, codes = quantize_straight_through(vectors, codebook)
        quantized.backward(draw(24, 5000, 16).to(device))
        found.append([each.cpu() for each in (quantized.detach(), codes, vectors.grad, codebook.grad)])
    assert all(torch.equal(left, right) for left, right in zip(*found, strict=True))
