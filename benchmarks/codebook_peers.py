"""One way to search a codebook, timed in a process of its own: `codebook_peers.py METHOD D V N THREADS SECONDS`.

Prints one JSON object: seconds of each repetition for N Gaussian vectors, and how many of 400 codes differ from the
float64 definition. benchmarks/codebook_search.py calls this for every method and case; a method that cannot run here
prints why. Each function below returns a callable that gives the codes of all vectors.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Search = Callable[[], Any]
CHECKED = 400
# Scores at once for the peers that write an [N, V] matrix: blocks that stay in the second-level cache.
BLOCK_SCORES = 2**19


def multitok(vectors: np.ndarray, codebook: np.ndarray, threads: int) -> Search:
    """`Codebook.search`; MULTITOK_NATIVE_PATH and MULTITOK_NATIVE of the environment choose the path."""
    from multitok.codebook import Codebook

    prepared = Codebook(codebook)
    return lambda: prepared.search(vectors, threads=threads).codes


def faiss(vectors: np.ndarray, codebook: np.ndarray, threads: int) -> Search:
    """`IndexFlatL2`."""
    import faiss

    faiss.omp_set_num_threads(threads)
    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook)
    return lambda: index.search(vectors, 1)[1][:, 0]


def _tensors(vectors: np.ndarray, codebook: np.ndarray, threads: int) -> tuple[Any, Any, Any]:
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    return torch, torch.from_numpy(vectors), torch.from_numpy(codebook)


def torch_cdist(vectors: np.ndarray, codebook: np.ndarray, threads: int) -> Search:
    """`torch.cdist(...).argmin(1)`, in blocks of 1 GiB."""
    torch, x, c = _tensors(vectors, codebook, threads)
    rows = max(1, 2**28 // len(c))
    return lambda: torch.cat([torch.cdist(part, c).argmin(1) for part in x.split(rows)])


def torch_addmm(vectors: np.ndarray, codebook: np.ndarray, threads: int) -> Search:
    """`addmm` and `argmax` into one buffer, in blocks."""
    torch, x, c = _tensors(vectors, codebook, threads)
    rows = max(16, BLOCK_SCORES // len(c))
    bias, weight = -0.5 * (c * c).sum(1), c.t()
    buffer, out = torch.empty(rows, len(c)), torch.empty(len(x), dtype=torch.int64)

    def run() -> Any:
        for start in range(0, len(x), rows):
            part = x[start : start + rows]
            scores = torch.addmm(bias, part, weight, out=buffer[: len(part)])
            out[start : start + rows] = scores.argmax(1)
        return out

    return run


def torch_compiled(vectors: np.ndarray, codebook: np.ndarray, threads: int) -> Search:
    """`torch.compile` of `addmm` and `argmax`, in blocks."""
    torch, x, c = _tensors(vectors, codebook, threads)
    rows = max(16, BLOCK_SCORES // len(c))
    bias, weight = -0.5 * (c * c).sum(1), c.t()
    step = torch.compile(lambda part: torch.addmm(bias, part, weight).argmax(1), dynamic=False)
    whole = x[: len(x) // rows * rows] if len(x) >= rows else x
    return lambda: torch.cat([step(part) for part in whole.split(rows)])


def sklearn(vectors: np.ndarray, codebook: np.ndarray, threads: int) -> Search:
    """`pairwise_distances_argmin`."""
    from sklearn.metrics import pairwise_distances_argmin

    return lambda: pairwise_distances_argmin(vectors, codebook)


def scipy_tree(vectors: np.ndarray, codebook: np.ndarray, threads: int) -> Search:
    """`cKDTree`; small D only."""
    from scipy.spatial import cKDTree

    tree = cKDTree(codebook)
    return lambda: tree.query(vectors, 1, workers=threads)[1]


def keops(vectors: np.ndarray, codebook: np.ndarray, threads: int) -> Search:
    """A KeOps reduction on LazyTensors."""
    _, x, c = _tensors(vectors, codebook, threads)
    from pykeops.torch import LazyTensor

    distances = ((LazyTensor(x[:, None, :]) - LazyTensor(c[None])) ** 2).sum(-1)
    return lambda: distances.argmin(1)[:, 0]


def vector_quantize_pytorch(vectors: np.ndarray, codebook: np.ndarray, threads: int) -> Search:
    """`VectorQuantize` in evaluation, in blocks of 512 MiB."""
    torch, x, c = _tensors(vectors, codebook, threads)
    from vector_quantize_pytorch import VectorQuantize

    module = VectorQuantize(dim=c.shape[1], codebook_size=len(c)).eval()
    module._codebook.embed.data.copy_(c[None])
    rows = max(1, 2**27 // len(c))
    return lambda: torch.cat([module(part[None])[1][0] for part in x.split(rows)])


METHODS = {
    method.__name__: method
    for method in (
        multitok, faiss, torch_cdist, torch_addmm, torch_compiled, sklearn, scipy_tree, keops, vector_quantize_pytorch
    )
}  # fmt: skip


def data(dim: int, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian vectors [count, dim] and codes [size, dim]."""
    rng = np.random.default_rng(0)
    codebook = rng.standard_normal((size, dim), dtype=np.float32)
    return rng.standard_normal((count, dim), dtype=np.float32), codebook


def reference(vectors: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """The nearest code by float64 distances, their terms added in the order of D."""
    found = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), 50):
        part = vectors[start : start + 50].astype(np.float64)
        distance = np.zeros((len(part), len(codebook)))
        for d in range(codebook.shape[1]):
            distance += np.square(part[:, d, None] - codebook[None, :, d].astype(np.float64))
        found[start : start + 50] = distance.argmin(1)
    return found


def main() -> None:
    """Time the method named on the command line."""
    name, seconds = sys.argv[1], float(sys.argv[6])
    dim, size, count, threads = (int(word) for word in sys.argv[2:6])
    vectors, codebook = data(dim, size, count)
    try:
        search = METHODS[name](vectors, codebook, threads)
        begin = time.perf_counter()
        codes = np.asarray(search())
        first = time.perf_counter() - begin
    except Exception as error:  # a peer's failure is a line of the table, not the end of the run
        print(json.dumps({"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}))
        return
    wrong = int((codes[:CHECKED] != reference(vectors[:CHECKED], codebook)).sum())
    times: list[float] = []
    while len(times) < 5 or (sum(times) < seconds and len(times) < 50):
        begin = time.perf_counter()
        search()
        times.append(time.perf_counter() - begin)
    searched = len(codes)
    print(json.dumps({"seconds": times, "first": first, "wrong": wrong, "searched": searched, "pid": os.getpid()}))


if __name__ == "__main__":
    main()
