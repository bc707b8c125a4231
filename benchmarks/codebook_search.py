"""Nearest-code search beside every peer: throughput, latency, other data than Gaussian, shares of the machine's limits.

    python benchmarks/codebook_search.py [--quick]

Each figure comes from a process of its own (codebook_peers.py), the methods of a case in turns; medians of at least
five repetitions. Writes docs/codebook_search.svg. Peers that are not installed are left out and named.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from codebook_figures import data_table, latency_table, plot
from machine import describe

HERE = Path(__file__).resolve().parent
PLOT = HERE.parent / "docs" / "codebook_search.svg"
QUICK = "--quick" in sys.argv

# (D, V): the cases of the table, and what decides there: small codes, a codec's, an image tokenizer's, large ones.
CASES = [(8, 1024), (32, 8192), (64, 512), (256, 1024), (256, 16384), (4, 16384), (3, 4096), (8, 16384)]
# Multiply-adds of one repetition, about 0.3 s of ours on one core; slower methods get a part of it.
WORK = 2**34 if QUICK else 2**36
SHARE = {
    "faiss": 4,
    "torch_addmm": 32,
    "torch_compiled": 32,
    "torch_cdist": 64,
    "sklearn": 32,
    "scipy_tree": 16,
    "keops": 64,
    "vector_quantize_pytorch": 256,
    "multitok, torch backend": 32,
    "multitok, portable": 16,
}
SECONDS = 0.3 if QUICK else 0.6
# faiss brings an OpenBLAS of its own that does not know every processor: both kernels are tried twice, and
# the best counts, as of ours.
FAISS_KERNELS = ("SkylakeX", "Haswell")
PATHS = {"multitok, AVX-512": "avx512", "multitok, AVX2": "avx2", "multitok, portable": "portable"}
PEERS = ("faiss", "torch_addmm", "torch_compiled", "torch_cdist", "sklearn", "scipy_tree", "keops",
         "vector_quantize_pytorch")  # fmt: skip
# With one thread only the peers that came nearest with two.
NEAREST_PEERS = ("faiss", "torch_addmm", "scipy_tree")


def run(method: str, dim: int, size: int, threads: int, extra: dict[str, str], share: int) -> dict[str, Any]:
    """One timing in a process of its own; adds `rate`, vectors a second."""
    count = max(2000, WORK // (dim * size) // share)
    # Products of D below 8 cost as much as those of 8: the rest of the work is per code.
    count = min(count, 2**21 // share + 2000)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    environment |= {"OMP_NUM_THREADS": str(threads)} | extra
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    command = ["taskset", "-c", ",".join(map(str, cpus)), sys.executable, str(HERE / "codebook_peers.py"), method]
    words = [str(number) for number in (dim, size, count, threads, SECONDS)]
    done = subprocess.run([*command, *words], env=environment, capture_output=True, text=True, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    result: dict[str, Any] = json.loads(lines[-1]) if lines else {"failed": done.stderr.strip()[-200:]}
    if "seconds" in result:
        result["rate"] = result["searched"] / statistics.median(result["seconds"])
    return result


def case(dim: int, size: int, threads: int) -> dict[str, dict[str, Any]]:
    """Every method on one case."""
    results = {"multitok": run("multitok", dim, size, threads, {}, 1)}
    for name, path in PATHS.items():
        results[name] = run("multitok", dim, size, threads, {"MULTITOK_NATIVE_PATH": path}, SHARE.get(name, 2))
    without = {"MULTITOK_NATIVE": "0"}
    results["multitok, torch backend"] = run("multitok", dim, size, threads, without, SHARE["multitok, torch backend"])
    for name in PEERS if threads > 1 else NEAREST_PEERS:
        if name == "scipy_tree" and dim > 8:
            continue
        kernels = 2 * FAISS_KERNELS if name == "faiss" else ("",)
        tried = [run(name, dim, size, threads, {"OPENBLAS_CORETYPE": k} if k else {}, SHARE[name]) for k in kernels]
        results[name] = max(tried, key=lambda result: result.get("rate", 0))
    again = run("multitok", dim, size, threads, {}, 1)
    if again.get("rate", 0) > results["multitok"].get("rate", 0):
        results["multitok"] = again
    return results


def ceilings(threads: int) -> dict[str, float]:
    """What codebook_ceilings.cpp prints, in 10^9 operations (bytes) a second."""
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "ceilings")
        source = str(HERE / "codebook_ceilings.cpp")
        subprocess.run(["g++", "-O3", "-std=c++17", "-pthread", source, "-o", program], check=True)
        out = subprocess.run([program, str(threads)], check=True, capture_output=True, text=True).stdout
    return {name: float(value) for name, value in (line.split() for line in out.splitlines())}


def throughput_table(results: dict[tuple[int, int], dict[str, dict[str, Any]]]) -> list[str]:
    """Vectors a second of every method; behind ours the ratio to faiss and to the best peer."""
    names = ["multitok", *PATHS, "multitok, torch backend", *PEERS]
    lines = ["| vectors/s | " + " | ".join(f"D{dim} V{size}" for dim, size in results) + " |"]
    lines.append("|---|" + "---:|" * len(results))
    for name in names:
        if not any(name in found for found in results.values()):
            continue
        cells = [_rate(found.get(name)) for found in results.values()]
        lines.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    for title, peers in (("ratio to faiss", ("faiss",)), ("ratio to the best peer", PEERS)):
        cells = []
        for found in results.values():
            best = max(found[peer].get("rate", 0) for peer in peers if peer in found)
            cells.append(f"**{found['multitok']['rate'] / best:.2f}**" if best else "")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return lines


def _rate(result: dict[str, Any] | None) -> str:
    if result is None:
        return ""
    if "rate" not in result:
        return "-"
    rate = result["rate"]
    text = f"{rate / 1e6:.2f} M" if rate >= 1e5 else f"{rate / 1e3:.1f} k"
    return text + (f" ({result['wrong']} wrong)" if result["wrong"] else "")


def shares(results: dict[tuple[int, int], dict[str, dict[str, Any]]], limits: dict[str, float]) -> list[str]:
    """How near the search comes to the machine's limits, as if every score were computed."""
    lines = ["| case | 10^9 operations/s, 2 D V a vector | of the float32 limit | of int16 | of int8 |"]
    lines.append("|---|---:|---:|---:|---:|")
    for (dim, size), found in results.items():
        speed = 2 * dim * size * found["multitok"]["rate"] / 1e9
        of = [limits.get(key) for key in ("float32-avx512", "int16-vnni", "int8-vnni")]
        if of[0] is None:
            of[0] = limits.get("float32-avx2")
        cells = [f"{speed / limit:.0%}" if limit else "" for limit in of]
        lines.append(f"| D{dim} V{size} | {speed:.0f} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    """Measure and print the section of docs/benchmarks.md."""
    print(describe() + "; " + ", ".join(_versions()) + ". Gaussian data, float32.\n")
    for threads in (2, 1):
        limits = ceilings(threads)
        results = {}
        for dim, size in CASES:
            results[dim, size] = case(dim, size, threads)
            print(dim, size, {name: f.get("rate", f.get("failed")) for name, f in results[dim, size].items()},
                  file=sys.stderr, flush=True)  # fmt: skip
        print(f"### Throughput, {threads} thread{'s' if threads > 1 else ''}\n")
        print("\n".join(throughput_table(results)) + "\n")
        print("Limits measured in the same run, 10^9 operations/s (memory: bytes): "
              + ", ".join(f"{name} {value:.0f}" for name, value in limits.items()) + ".\n")  # fmt: skip
        print("\n".join(shares(results, limits)) + "\n")
        if threads == 2:
            plot(results, PEERS, PLOT)
            print("![Search speed relative to faiss](codebook_search.svg)\n")
    print("### Latency, microseconds a call\n\n" + latency_table() + "\n")
    print("### Other data, 2 threads\n\n" + data_table(QUICK))


def _versions() -> list[str]:
    found = []
    for package in ("faiss-cpu", "scikit-learn", "scipy", "pykeops", "vector-quantize-pytorch"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return found


if __name__ == "__main__":
    main()
