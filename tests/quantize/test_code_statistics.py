"""How codebooks are used, against counting by hand."""

from __future__ import annotations

import math

import pytest
import torch

from multitok.errors import CodeRangeError, InputError, ShapeError, SpecError
from multitok.quantize import CodeStatistics, perplexity, usage


def test_counts_over_batches() -> None:
    statistics = CodeStatistics((4, 3))
    batches = [torch.tensor([[[0, 2], [1, 2]]]), torch.tensor([[3, 0], [0, -1]]), torch.tensor([[0]])]
    for codes in batches:
        statistics.update(codes)
    assert statistics.counts.tolist() == [3, 1, 0, 1, 1, 0, 2]
    assert statistics.usage() == (0.75, pytest.approx(2 / 3))
    first, second = statistics.perplexity()
    assert first == pytest.approx(perplexity(torch.tensor([0, 1, 3, 0, 0]), 4))
    assert second == pytest.approx(math.exp(-(math.log(1 / 3) + 2 * math.log(2 / 3)) / 3))
    assert usage(torch.tensor([2, 2, 0]), 3) == statistics.usage()[1]
    assert [codes.tolist() for codes in statistics.dead_codes()] == [[2], [1]]
    assert [codes.tolist() for codes in statistics.dead_codes(below=0.9)] == [[1, 2, 3], [1]]
    other = CodeStatistics((4, 3))
    other.load_state_dict(statistics.state_dict())
    assert other.usage() == statistics.usage()
    statistics.reset()
    assert int(statistics.counts.sum()) == 0


def test_what_cannot_be() -> None:
    statistics = CodeStatistics((4, 3))
    with pytest.raises(InputError, match="codebook 0 has counted no codes"):
        statistics.usage()
    with pytest.raises(CodeRangeError, match="codes of codebook 1 reach from 0 to 3: allowed are 0 to 2"):
        statistics.update(torch.tensor([[0, 0], [0, 3]]))
    with pytest.raises(CodeRangeError, match="from -2"):
        statistics.update(torch.tensor([[-2]]))
    for codes in (torch.zeros(2, 3).long(), torch.zeros(2, 2), torch.zeros(()).long()):
        with pytest.raises(ShapeError, match="1 <= k <= 2"):
            statistics.update(codes)
    for sizes in ((), (0,), (2**28, 1)):
        with pytest.raises(SpecError, match="codebook sizes"):
            CodeStatistics(sizes)
