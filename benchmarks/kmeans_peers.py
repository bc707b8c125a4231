"""One way to train a codebook, timed in a process of its own: `kmeans_peers.py METHOD CASE`, CASE as JSON.

Prints one JSON object: seconds of one training, the inertia of its codebook (the same float64 sum for every method),
and which matrix-product kernels were loaded. benchmarks/kmeans.py calls this for every method and case; a method that
cannot run here prints why. Each function below returns a callable that trains and gives the codebook [V, D].
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Train = Callable[[], np.ndarray]


def multitok(case: dict[str, Any], vectors: np.ndarray, start: np.ndarray | None) -> Train:
    """`train_kmeans`."""
    from multitok.train.kmeans import train_kmeans

    options = {"iterations": case["iterations"], "threads": case["threads"]}
    return lambda: train_kmeans(vectors, case["size"], start="k-means++" if start is None else start, **options)


def faiss(case: dict[str, Any], vectors: np.ndarray, start: np.ndarray | None) -> Train:
    """`faiss.Kmeans` on all vectors (by default it draws 256 for each code)."""
    import faiss

    faiss.omp_set_num_threads(case["threads"])

    def train() -> np.ndarray:
        kmeans = faiss.Kmeans(
            case["dim"], case["size"], niter=case["iterations"], seed=1, max_points_per_centroid=len(vectors)
        )
        kmeans.train(vectors, init_centroids=start)
        return np.asarray(kmeans.centroids)

    return train


def sklearn(case: dict[str, Any], vectors: np.ndarray, start: np.ndarray | None) -> Train:
    """`KMeans(algorithm="lloyd")`."""
    from sklearn.cluster import KMeans

    init = "k-means++" if start is None else start
    kmeans = KMeans(
        case["size"], init=init, n_init=1, max_iter=case["iterations"], tol=0, algorithm="lloyd", random_state=0
    )
    return lambda: kmeans.fit(vectors).cluster_centers_


def scipy(case: dict[str, Any], vectors: np.ndarray, start: np.ndarray | None) -> Train:
    """`kmeans2`; one thread, it has no more."""
    from scipy.cluster.vq import kmeans2

    if start is None:
        return lambda: kmeans2(vectors, case["size"], iter=case["iterations"], minit="points", seed=0)[0]
    return lambda: kmeans2(vectors, start, iter=case["iterations"], minit="matrix")[0]


def multitok_minibatch(case: dict[str, Any], vectors: np.ndarray, start: np.ndarray | None) -> Train:
    """`train_kmeans_minibatch`."""
    from multitok.train.kmeans_minibatch import train_kmeans_minibatch

    options = {"passes": case["passes"], "batch_size": case["batch"], "threads": case["threads"]}
    return lambda: train_kmeans_minibatch([vectors], case["size"], **options)


def sklearn_minibatch(case: dict[str, Any], vectors: np.ndarray, start: np.ndarray | None) -> Train:
    """`MiniBatchKMeans` without early stop; its start from as many vectors as ours."""
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(
        case["size"], batch_size=case["batch"], max_iter=case["passes"], n_init=1, init_size=32 * case["size"], tol=0,
        max_no_improvement=None, random_state=0,
    )  # fmt: skip
    return lambda: kmeans.fit(vectors).cluster_centers_


METHODS = {method.__name__: method for method in (
    multitok, faiss, sklearn, scipy, multitok_minibatch, sklearn_minibatch
)}  # fmt: skip


def data(case: dict[str, Any]) -> np.ndarray:
    """[N, D] float32: Gaussian, or clusters of unequal size, twice as many as there are codes."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((case["count"], case["dim"]), dtype=np.float32)
    if case["data"] == "clusters":
        number = 2 * case["size"]
        centres = rng.standard_normal((number, case["dim"]), dtype=np.float32)
        sizes = rng.dirichlet(np.ones(number))
        vectors = centres[rng.choice(number, case["count"], p=sizes)] + np.float32(0.2) * vectors
    return vectors


def inertia(vectors: np.ndarray, codebook: np.ndarray) -> float:
    """Sum of squared distances in float64, the search itself checked on some vectors by the definition."""
    from multitok.codebook import Codebook

    codebook = codebook.astype(np.float32)
    distances = Codebook(codebook).search(vectors, distances=True).distances
    for row in range(0, len(vectors), len(vectors) // 50):
        wide = vectors[row].astype(np.float64) - codebook
        assert np.isclose(distances[row], np.square(wide).sum(axis=1).min(), rtol=1e-12)
    return float(distances.sum())


def kernels() -> str:
    """Which BLAS libraries are loaded, and the processor they take this one for."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "threadpoolctl not installed"
    found = {
        f"{pool['internal_api']} {pool.get('architecture') or '?'}"
        for pool in threadpool_info()
        if pool["user_api"] == "blas"
    }
    return ", ".join(sorted(found))


def main() -> None:
    """Train once, after a short training that loads everything."""
    name, case = sys.argv[1], json.loads(sys.argv[2])
    vectors = data(case)
    start = None
    if case["start"] == "same":
        start = vectors[np.random.default_rng(1).permutation(len(vectors))[: case["size"]]].copy()
    try:
        small = {**case, "size": 64, "iterations": 1, "passes": 1}
        METHODS[name](small, vectors[:5000], None if start is None else start[:64])()
        train = METHODS[name](case, vectors, start)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        codebook = train()
        seconds, processor_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
    except Exception as error:  # a peer's failure is a line of the table, not the end of the run
        print(json.dumps({"failed": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}))
        return
    result = {"seconds": seconds, "processor_seconds": processor_seconds, "inertia": inertia(vectors, codebook)}
    loaded = "" if name.startswith("multitok") else kernels()
    print(json.dumps({**result, "kernels": loaded or backend(case)}))


def backend(case: dict[str, Any]) -> str:
    """What our search runs on."""
    from multitok.codebook import Codebook, native

    if native.available() is not None:
        return "torch"
    codebook = np.random.default_rng(0).standard_normal((case["size"], case["dim"]), dtype=np.float32)
    path = native.NativeCodebook(
        native.Matrix(codebook.ctypes.data, "float32", *codebook.shape, codebook.shape[1]), metric="l2"
    ).path(case["count"])
    return f"{Codebook(codebook).backend} {path}"


if __name__ == "__main__":
    main()
