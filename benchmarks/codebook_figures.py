"""The smaller tables and the picture of benchmarks/codebook_search.py."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


def latency_table() -> str:
    """Microseconds of one call with few vectors: a process for each number of threads."""
    lines = ["| threads | D, V | vectors | multitok | torch addmm + argmax | faiss |", "|---|---|---:|---:|---:|---:|"]
    for threads in (1, 2):
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
        environment |= {"OMP_NUM_THREADS": str(threads), "OPENBLAS_CORETYPE": "SkylakeX"}
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))
        command = ["taskset", "-c", cpus, sys.executable, __file__, "latency", str(threads)]
        out = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        lines += [line for line in out.splitlines() if line.startswith("|")]
    return "\n".join(lines)


def _microseconds(call: Callable[[], Any]) -> float:
    for _ in range(50):
        call()
    times = []
    for _ in range(1000):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times) * 1e6


def _latency(threads: int) -> None:
    import torch
    from codebook_peers import data

    from multitok.codebook import Codebook

    try:
        import faiss
    except ImportError:
        faiss = None
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    for dim, size in ((8, 1024), (256, 1024)):
        for count in (1, 8, 75):
            vectors, codes = data(dim, size, count)
            codebook = Codebook(codes)
            x, c = torch.from_numpy(vectors), torch.from_numpy(codes)
            bias, weight = -0.5 * (c * c).sum(1), c.t().contiguous()
            cells = [
                _microseconds(lambda codebook=codebook, vectors=vectors: codebook.search(vectors, threads=threads)),
                _microseconds(lambda x=x, bias=bias, weight=weight: torch.addmm(bias, x, weight).argmax(1)),
            ]
            if faiss is not None:
                faiss.omp_set_num_threads(threads)
                index = faiss.IndexFlatL2(dim)
                index.add(codes)
                cells.append(_microseconds(lambda index=index, vectors=vectors: index.search(vectors, 1)))
            print(f"| {threads} | D{dim} V{size} | {count} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")


def data_table(quick: bool) -> str:
    """The same search on data that are harder to tell apart than Gaussian ones; codes checked against float64."""
    import numpy as np
    from codebook_peers import reference

    from multitok.codebook import Codebook

    rng = np.random.default_rng(0)
    lines = ["| data | D, V | vectors/s | relative to Gaussian | wrong of 400 |", "|---|---|---:|---:|---:|"]
    for dim, size in ((8, 1024), (256, 1024)):
        count = 2**21 // dim // (4 if quick else 1)
        x = rng.standard_normal((count, dim), dtype=np.float32)
        c = rng.standard_normal((size, dim), dtype=np.float32)
        centres = rng.standard_normal((32, dim), dtype=np.float32)
        twice = c.copy()
        twice[size // 2 :] = c[: size // 2]
        tight = c[:1] + np.float32(1e-4) * c
        near = tight[rng.integers(0, size, count)] + np.float32(1e-5) * x
        clusters = centres[rng.integers(0, 32, size)] + np.float32(0.1) * c
        around = centres[rng.integers(0, 32, count)] + np.float32(0.1) * x
        cases = {
            "Gaussian": (x, c),
            "32 clusters": (around, clusters),
            "every code twice": (x, twice),
            "offset by 100": (x + np.float32(100), c + np.float32(100)),
            "codes within 1e-4": (near, tight),
            "small integers, many ties": (np.rint(2 * x), np.rint(2 * c)),
        }
        if dim == 8:
            cases["latents of image-patch8"] = _latents(count)
        base = 0.0
        for name, (vectors, codes) in cases.items():
            codebook = Codebook(codes)
            times = []
            for _ in range(7):
                begin = time.perf_counter()
                found = codebook.search(vectors, threads=2).codes
                times.append(time.perf_counter() - begin)
            rate = len(vectors) / statistics.median(times)
            base = base or rate
            wrong = int((found[:400] != reference(vectors[:400], codes)).sum())
            shape = f"D{codes.shape[1]} V{len(codes)}"
            lines.append(f"| {name} | {shape} | {rate / 1e6:.2f} M | {rate / base:.2f} | {wrong} |")
    return "\n".join(lines)


def _latents(count: int) -> tuple[Any, Any]:
    """Latents of the sample photos and the first codebook of the shipped image tokenizer."""
    import numpy as np
    from PIL import Image

    import multitok
    from multitok.frontend.patches import to_patches

    tokenizer: Any = multitok.load("image-patch8")
    parts = []
    for path in sorted((ROOT / "examples" / "data").rglob("*")):
        if path.suffix in {".jpg", ".png", ".webp"}:
            image = np.asarray(Image.open(path).convert("RGB"))
            parts.append(tokenizer.latents(to_patches(image, (8, 8))))
    latents = np.concatenate(parts)
    return np.resize(latents, (count, latents.shape[1])), tokenizer.quantizer.codebooks[0]


def plot(results: dict[tuple[int, int], dict[str, dict[str, Any]]], peers: Sequence[str], path: Path) -> None:
    """Bars of speed relative to faiss, one group a case."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "multitok"
    import matplotlib.pyplot as plt

    shown = ["multitok", "multitok, AVX2", *(peer for peer in peers if peer != "vector_quantize_pytorch")]
    figure, axes = plt.subplots(figsize=(10, 4), layout="constrained")
    width = 0.85 / len(shown)
    for number, name in enumerate(shown):
        heights = [found.get(name, {}).get("rate", 0) / found["faiss"]["rate"] for found in results.values()]
        places = [place + (number - len(shown) / 2 + 0.5) * width for place in range(len(results))]
        axes.bar(places, heights, width, label=name.replace("_", " "))
    axes.set_xticks(range(len(results)), [f"D{dim}\nV{size:,}" for dim, size in results])
    axes.set_ylabel("vectors/s, faiss = 1")
    axes.axhline(1, color="black", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=2)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    _latency(int(sys.argv[2]))
