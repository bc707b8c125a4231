"""k-means beside its peers: `python benchmarks/kmeans.py [--quick] [--runs N]`

Two tables, two threads. In the first, every method makes the same number of Lloyd passes over the same Gaussian
vectors from the same codes, so that only speed differs. In the second, each takes its own start on clustered vectors,
and the mini-batch methods make one pass. Each training runs in a process of its own (kmeans_peers.py), the methods of a
case in turns; medians, in brackets the extremes. The inertia is the float64 sum of the squared distances to the final
codebook, computed in the same way for all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from machine import describe

HERE = Path(__file__).resolve().parent
THREADS = 2
PACKAGES = ("faiss-cpu", "scikit-learn", "scipy")

# (N, D, V, passes)
SAME_START = [(200_000, 32, 1024, 20), (1_000_000, 8, 1024, 20), (100_000, 256, 1024, 20), (500_000, 64, 4096, 5)]
OWN_START = [(200_000, 32, 1024, 20)]
BATCH = 4096
# kmeans2 takes half a minute for so many multiply-adds.
MOST_FOR_SCIPY = 2**37
# faiss brings an OpenBLAS of its own that does not know every processor: both kernels are tried, the faster one counts.
FAISS_KERNELS = ("SkylakeX", "Haswell")


def run(method: str, case: dict[str, Any], kernel: str = "") -> dict[str, Any]:
    """One training in a process of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    environment |= {"OMP_NUM_THREADS": str(THREADS)} | ({"OPENBLAS_CORETYPE": kernel} if kernel else {})
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))[:THREADS]))
    command = ["taskset", "-c", cpus, sys.executable, "-W", "ignore", str(HERE / "kmeans_peers.py")]
    done = subprocess.run([*command, method, json.dumps(case)], env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    result: dict[str, Any] = json.loads(lines[-1]) if lines else {"failed": done.stderr.strip()[-200:]}
    print(case["count"], case["dim"], case["size"], method, kernel, result, file=sys.stderr, flush=True)
    return result


def measure(case: dict[str, Any], methods: list[str], runs: int) -> dict[str, list[dict[str, Any]]]:
    """`runs` trainings of each method, in turns; of faiss those with the faster kernels."""
    kernels = {method: [""] if method != "faiss" else list(FAISS_KERNELS) for method in methods}
    results: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _ in range(runs):
        for method in methods:
            for kernel in kernels[method]:
                results.setdefault((method, kernel), []).append(run(method, case, kernel))
    chosen: dict[str, list[dict[str, Any]]] = {}
    for (method, _), found in results.items():
        if method not in chosen or seconds(found) < seconds(chosen[method]):
            chosen[method] = found
    return chosen


def seconds(found: list[dict[str, Any]]) -> float:
    """Median time; infinite where a training failed."""
    return statistics.median(result.get("seconds", float("inf")) for result in found)


def lines(title: str, found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """One line for each method."""
    ours = found["multitok"][0]
    table = []
    for method, results in found.items():
        if any("failed" in result for result in results):
            failed = next(result["failed"] for result in results if "failed" in result)
            table.append(f"| {title} | {method.replace('_', ' ')} | failed: {failed} | | | |")
            continue
        times = [result["seconds"] for result in results]
        speed = seconds(results) / seconds(found["multitok"])
        spread = f"{seconds(results):.2f} ({min(times):.2f} to {max(times):.2f})"
        worst = max(result["inertia"] for result in results) / ours["inertia"]
        name = method.replace("_", " ")
        table.append(f"| {title} | {name} | {spread} | {speed:.2f} | {worst:.4f} | {results[0]['kernels']} |")
    return table


def main() -> None:
    """Time all methods and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the vectors, to see that it works")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    runs, divisor = (1, 10) if options.quick else (options.runs, 1)
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} not installed")
    print(f"{describe()}, {', '.join(versions)}; {THREADS} threads, float32, median of {runs} runs\n")

    head = "| N, D, V, passes | method | seconds | times multitok | inertia, multitok = 1 | kernels |\n"
    head += "|---|---|---:|---:|---:|---|"
    common = {"threads": THREADS, "passes": 1, "batch": BATCH}
    for heading, start, kind, cases in (
        ("### The same start, Gaussian vectors", "same", "gaussian", SAME_START),
        ("### Each its own start, clustered vectors", "own", "clusters", OWN_START),
    ):
        print(f"{heading}\n\n{head}")
        for count, dim, size, iterations in cases:
            case = {**common, "count": count // divisor, "dim": dim, "size": size // divisor, "iterations": iterations,
                    "start": start, "data": kind}  # fmt: skip
            methods = ["multitok", "faiss", "sklearn"]
            if start == "own":
                methods += ["multitok_minibatch", "sklearn_minibatch"]
            elif case["count"] * dim * case["size"] * iterations <= MOST_FOR_SCIPY:
                methods.append("scipy")
            title = f"{case['count']:,}, {dim}, {case['size']:,}, {iterations}"
            print("\n".join(lines(title, measure(case, methods, runs))), flush=True)
        print()


if __name__ == "__main__":
    main()
