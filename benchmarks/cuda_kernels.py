"""What the compiler says of the CUDA kernels, and what arithmetic allows: `python benchmarks/cuda_kernels.py [--write]`

Prints tables of registers, spills, shared memory, theoretical occupancy and instructions of the hottest loops for
every generation of cards, and bounds of the time on an H100 from NVIDIA's published rates. Nothing is measured and no
GPU is needed. With --write the tables go into cuda/README.md, between its markers.

Needs nvcc 12.8 or newer and nvdisasm; where they are not on PATH, they are fetched from PyPI into build/.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from multitok.codebook.cuda_launch import KERNELS, MMA_TILES, TENSOR_CORE_CAPABILITY, mma_kernel, source
from multitok.codebook.cuda_plan import Pass, f32_pass

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "cuda" / "README.md"
TOOLS = ROOT / "build" / "cuda-tools"
# The compiler of one version, whatever else is installed: other versions give other registers. The disassembler only
# reads, and has no wheel of that version.
PACKAGES = (
    *(f"nvidia-{name}==13.0.*" for name in ("cuda-nvcc", "cuda-crt", "cuda-runtime", "nvvm")),
    "nvidia-cuda-nvdisasm>=13.2,<14",
)
MARKS = ("<!-- tables: begin -->", "<!-- tables: end -->")


class Card(NamedTuple):
    """Limits of one multiprocessor, from the CUDA programming guide (technical specifications by capability).

    Args:
        architecture: As nvcc names it.
        example: A card of it.
        capability: Compute capability.
        warps: Resident warps.
        blocks: Resident blocks.
        shared: Bytes of shared memory.
        block_shared: The most of them that one block may have.
        reserved: What the system takes of them for each block.
    """

    architecture: str
    example: str
    capability: tuple[int, int]
    warps: int
    blocks: int
    shared: int
    block_shared: int
    reserved: int


CARDS = (
    Card("sm_75", "T4", (7, 5), 32, 16, 64 << 10, 64 << 10, 0),
    Card("sm_80", "A100", (8, 0), 64, 32, 164 << 10, 163 << 10, 1 << 10),
    Card("sm_90a", "H100", (9, 0), 64, 32, 228 << 10, 227 << 10, 1 << 10),
    Card("sm_100a", "B200", (10, 0), 64, 32, 228 << 10, 227 << 10, 1 << 10),
    Card("sm_120", "RTX 5090", (12, 0), 48, 24, 100 << 10, 99 << 10, 1 << 10),
)
REGISTERS = 65536
# H100 SXM, "NVIDIA H100 Tensor Core GPU Architecture" and its data sheet; per multiprocessor and clock where not said.
MULTIPROCESSORS, CLOCK_HZ, MEMORY_BYTES_PER_S = 132, 1.83e9, 3.35e12
TENSOR_MULTIPLY_ADDS, FLOAT_MULTIPLY_ADDS, COMPARISONS, SHARED_BYTES = 2048, 128, 64, 128
PER_S = MULTIPROCESSORS * CLOCK_HZ
# N, D, V
CASES = (
    (10**6, 8, 1024),
    (10**6, 4, 16384),
    (10**6, 32, 8192),
    (10**6, 64, 512),
    (10**6, 256, 1024),
    (10**6, 256, 16384),
    (10**5, 1024, 262144),
)
CLASSES = {
    "tensor": ("HMMA",),
    "FFMA": ("FFMA",),
    "max": ("FMNMX",),
    "shared loads": ("LDS", "LDSM"),
    "shared stores": ("STS",),
    "global": ("LDG", "STG", "LDGSTS"),
    "barriers": ("BAR", "DEPBAR", "LDGDEPBAR"),
}


class Kernel(NamedTuple):
    """What one compilation says of one kernel; `loop` counts the instructions of its hottest loop."""

    registers: int
    shared: int
    spilled: int
    loop: Counter[str]


def main() -> None:
    """Print the tables; write them where asked to."""
    with tempfile.TemporaryDirectory() as folder:
        compiled = {card.architecture: compile_all(card, Path(folder)) for card in CARDS}
    text = "\n\n".join(
        [
            f"`python benchmarks/cuda_kernels.py`, {version()}. Theory and arithmetic only: no GPU was at hand, and "
            "speed is not measured.",
            "### Registers of a thread\n\n" + table_of_registers(compiled),
            "### Shared memory and theoretical occupancy\n\n" + table_of_occupancy(compiled),
            "### Instructions of the hottest loop, as the compiler unrolled it\n\n" + table_of_loops(compiled),
            "### Lower bounds on an H100\n\n" + table_of_bounds(),
        ]
    )
    print(text)
    if "--write" in sys.argv[1:]:
        page = README.read_text(encoding="utf-8")
        before, rest = page.split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        README.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}", encoding="utf-8")


def tool(name: str) -> str:
    """A program of the CUDA toolkit, from PyPI where PATH has none."""
    on_path = shutil.which(name)
    if on_path:
        return on_path
    if not any(TOOLS.glob(f"nvidia/*/bin/{name}")):
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(TOOLS)]
        subprocess.run([*pip, *PACKAGES], check=True, stdout=subprocess.DEVNULL)
    return str(next(TOOLS.glob(f"nvidia/*/bin/{name}")))


def version() -> str:
    """The compiler's name and version."""
    told = subprocess.run([tool("nvcc"), "--version"], check=True, capture_output=True, text=True).stdout
    return "nvcc " + re.findall(r"V(\d+\.\d+\.\d+)", told)[0]


def compile_all(card: Card, folder: Path) -> dict[str, Kernel]:
    """Every kernel that runs on the card, by its name in `KERNELS`."""
    kernels: dict[str, Kernel] = {}
    for file, groups in KERNELS.items():
        if file == "nearest_mma.cu" and card.capability < TENSOR_CORE_CAPABILITY:
            continue
        kernels |= compile_file(file, [name for group in groups for name in group], card, folder)
    return kernels


def compile_file(file: str, names: list[str], card: Card, folder: Path) -> dict[str, Kernel]:
    """The kernels of one file."""
    path, binary = folder / file, folder / "kernels.cubin"
    used = ", ".join(f"reinterpret_cast<void*>({name})" for name in names)  # templates are compiled where used
    path.write_text(f"{source(file)}void* kernels[] = {{{used}}};\n", encoding="utf-8")
    command = [tool("nvcc"), "-std=c++17", f"-arch={card.architecture}", "-cubin", "-Xptxas", "-v", str(path)]
    report = subprocess.run([*command, "-o", str(binary)], check=True, capture_output=True, text=True).stderr
    listing = subprocess.run([tool("nvdisasm"), "-c", str(binary)], check=True, capture_output=True, text=True).stdout
    sections = re.finditer(r"\n\s*\.section\s+\.text\.(\w+),(.*?)(?=\n\s*\.section\s|\Z)", listing, re.DOTALL)
    code = {section[1]: section[2] for section in sections}
    kernels = {}
    for part in report.split("Function properties for ")[1:]:
        symbol = part.split()[0]
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", part)))
        registers, shared = re.search(r"Used (\d+) registers", part), re.search(r"(\d+) bytes smem", part)
        assert registers is not None
        kernels[name_of(symbol, names)] = Kernel(
            int(registers[1]), int(shared[1]) if shared else 0, spilled, hottest_loop(code[symbol])
        )
    return kernels


def name_of(symbol: str, names: list[str]) -> str:
    """The kernel behind a mangled name."""
    letters = {"float": "f", "double": "d", "bfloat16_bits": "t"}
    for name in names:
        plain, _, arguments = name.rstrip(">").partition("<")
        mangled = f"_Z{len(plain)}{plain}"
        if arguments:
            words = arguments.split(", ")
            values = [
                f"Lb{int(word == 'true')}E" if word in ("true", "false") else letters.get(word, f"Li{word}E")
                for word in words
            ]
            mangled += f"I{''.join(values)}E"
        if symbol.startswith(mangled):
            return name
    raise LookupError(symbol)


def hottest_loop(code: str) -> Counter[str]:
    """Instructions between a label and a branch back to it, of the loop that has most to do with multiply-adds."""
    lines, labels = [], {}
    for line in code.splitlines():
        label = re.match(r"(\.L_\w+):", line)
        if label:
            labels[label[1]] = len(lines)
        instruction = re.match(r"\s+/\*[0-9a-f]+\*/\s+(.*?);", line)
        if instruction:
            lines.append(instruction[1].strip())
    operations = [re.sub(r"^@!?U?P\w+\s+", "", line).split()[0].split(".")[0] for line in lines]
    loops = []
    for i, line in enumerate(lines):
        target = re.search(r"BRA.*?\(?(\.L_\w+)", line)
        if target and labels.get(target[1], i + 1) <= i:
            loops.append((labels[target[1]], i + 1))
    counts = [Counter(operations[start:end]) for start, end in loops or [(0, len(operations))]]
    return max(counts, key=lambda count: (count["HMMA"] + count["FFMA"]) / count.total())


def occupancy(card: Card, kernel: Kernel, threads: int, dynamic: int) -> int:
    """Blocks that a multiprocessor holds at once."""
    warps = threads // 32
    # Registers are given to warps in units of 256, from four equal parts of the file.
    by_registers = 4 * (REGISTERS // 4 // (-(-kernel.registers // 8) * 256)) // warps
    shared = -(-(kernel.shared + dynamic) // 128) * 128 + card.reserved
    by_shared = card.shared // shared if shared else card.blocks
    return min(card.warps // warps, card.blocks, by_registers, by_shared)


def table_of_registers(compiled: dict[str, dict[str, Kernel]]) -> str:
    """Registers by architecture, and what is spilled on all of them together."""
    names = [name for groups in KERNELS.values() for group in groups for name in group]
    rows = [["kernel", *(card.architecture for card in CARDS), "spilled bytes"]]
    for name in names:
        found = [compiled[card.architecture].get(name) for card in CARDS]
        rows.append(
            [f"`{name}`", *(str(k.registers) if k else "-" for k in found), str(sum(k.spilled for k in found if k))]
        )
    return as_table(rows)


def table_of_occupancy(compiled: dict[str, dict[str, Kernel]]) -> str:
    """Shared memory of a block, and the warps that a multiprocessor holds of those it could."""
    wanted: list[tuple[str, str, int, int]] = []
    for tile in MMA_TILES:
        for dim in (64, 256) if tile[2] else (1024,):
            threads = 32 * tile[0] * tile[1]
            wanted.append((mma_kernel(tile), f"D {dim}, k 1", threads, Pass(tile, 8, 1).shared_bytes(dim)))
    narrow = (2, 1, False)
    wanted.append((mma_kernel(narrow), "D 1024, k 16", 64, Pass(narrow, 32, 1).shared_bytes(1024)))
    wanted += [("nearest_f32", f"k {k}", 256, f32_pass(k, parts=1).shared_bytes(1)) for k in (1, 16)]
    wanted += [(f"nearest_small<{dim}>", "", 128, 0) for dim in (3, 4, 8, 16)]
    rows = [["kernel", "for", "threads", "shared bytes", *(f"{card.architecture} ({card.example})" for card in CARDS)]]
    for name, case, threads, dynamic in wanted:
        cells = []
        for card in CARDS:
            kernel = compiled[card.architecture].get(name)
            if kernel is None or dynamic > card.block_shared:
                cells.append("-")
                continue
            blocks = occupancy(card, kernel, threads, dynamic)
            cells.append(f"{blocks} x {threads // 32} warps, {100 * blocks * threads // 32 // card.warps}%")
        static = compiled["sm_90a"][name].shared
        rows.append([f"`{name}`", case, str(threads), f"{static + dynamic:,}", *cells])
    return as_table(rows)


def table_of_loops(compiled: dict[str, dict[str, Kernel]]) -> str:
    """Instructions of the hottest loop, by class."""
    rows = [["kernel", "architecture", *CLASSES, "other", "all"]]
    names = [*map(mma_kernel, MMA_TILES), "nearest_f32", "nearest_small<4>", "nearest_small<8>"]
    for name in names:
        for card in CARDS:
            kernel = compiled[card.architecture].get(name)
            if kernel is None:
                continue
            by_class = [sum(kernel.loop[operation] for operation in group) for group in CLASSES.values()]
            everything = kernel.loop.total()
            numbers = [*by_class, everything - sum(by_class), everything]
            rows.append([f"`{name}`", card.architecture, *map(str, numbers)])
    return as_table(rows)


def table_of_bounds() -> str:
    """Milliseconds that parts of the work take at least, each at the published rate, and what binds."""
    rows = [["N", "D", "V", "kernel", "multiply-adds", "shared loads", "maxima", "memory", "at least"]]
    for count, dim, size in CASES:
        if dim <= 16:
            name, pairs = f"nearest_small<{dim}>", count * size
            products = pairs * dim / (FLOAT_MULTIPLY_ADDS * PER_S)
            # Broadcasts of 16 bytes: a code and its h serve 64 vectors of a warp, one a clock.
            loads = pairs / 64 * (-(-dim // 4) + 1 / 4) / PER_S
            moved = count * (4 * dim + 8)
        else:
            tile = (4, 2, dim <= 256)
            search = Pass(tile, 8, 1)
            name, padded, pairs = mma_kernel(tile), search.padded_dim(dim), count * size
            products = pairs * padded / (TENSOR_MULTIPLY_ADDS * PER_S)
            # ldmatrix of 64 vectors and 64 codes for each 64 x 64 x 16 products.
            loads = pairs * padded / 65536 * 4096 / (SHARED_BYTES * PER_S)
            moved = count * (4 * dim + 2 * padded * 2 + 8)
        maxima = pairs / (COMPARISONS * PER_S)
        times = [1e3 * t for t in (products, loads, maxima, moved / MEMORY_BYTES_PER_S)]
        rows.append(
            [f"{count:,}", str(dim), f"{size:,}", f"`{name}`", *(f"{t:.2f} ms" for t in times), f"{max(times):.2f} ms"]
        )
    unfused = ", ".join(f"{1e3 * 8 * n * v / MEMORY_BYTES_PER_S:.0f} ms at V {v:,}" for n, d, v in CASES if d == 256)
    note = (
        "\n\nEach column is one resource of an H100 SXM by itself, at 1.83 GHz: multiply-adds at 2,048 (bfloat16, "
        "dense) or 128 (float32) a multiprocessor and clock, 128 bytes of shared memory, 64 maxima; 3.35 TB/s for "
        "vectors in, their bfloat16 copies out and in, codes out. They overlap at best, so the last column is a floor "
        "and no estimate: `mma.sync` does not reach the full rate of Hopper's tensor cores, which only `wgmma` does, "
        "and candidates, decisions and the reading of codes through the second-level cache are not counted. A matrix "
        f"[N, V] in float32, which is never made, would cost {unfused} to write and read."
    )
    return as_table(rows) + note


def as_table(rows: list[list[str]]) -> str:
    """Markdown."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


if __name__ == "__main__":
    main()
