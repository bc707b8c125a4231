"""Every number that the documentation states, measured now: `python benchmarks/run.py [NAME ...]`

Runs the scripts below one after the other, but for the long ones in OPTIONAL, and writes their tables to
docs/benchmarks.md. With names, runs only those and keeps the other tables as they are. MULTITOK_HELDOUT names the
folder of held-out pictures, clips and volumes that vision.py measures on; without it, it takes the few of
examples/data. MULTITOK_HELDOUT_SOUND does the same for audio.py, MULTITOK_SPEECH_UNITS names the folder of
audio_units.py. quantizers.py needs the folder, and trains on the photos in it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
SCRIPTS = {
    "codebook_search": "Nearest-code search",
    "kmeans": "k-means",
    "startup": "Starting",
    "prepare": "Raw sources to token shards",
    "prepare_memory": "Memory of a job",
    "loader": "Shards to packed batches",
    "tokenizers": "Tokenizers, one core",
    "vision": "Image, video and volume tokenizers: quality",
    "vision_speed": "Image, video and volume tokenizers: speed",
    "integer_stacks": "Integer nets",
    "causal_nets": "Exact causal nets",
    "vision_memory": "Image and video tokenizers: memory",
    "audio": "Sound tokenizers: quality",
    "audio_units": "Speech units",
    "audio_speed": "Sound tokenizers: speed",
    "audio_memory": "Sound tokenizers: memory",
    "quantizers": "Quantisers trained from scratch",
}
# Scripts that run only when named, and what they are given.
OPTIONAL = {
    "audio_units": [],
    "vision_memory": ["image-f8", "video-4x8x8"],
    "audio_memory": ["codec-16khz", "semantic-stream", "mel-vq", "--decode-s", "600"],
    "quantizers": ["--seconds", "75"],
}
HEAD = """# Benchmarks

Every table is printed by the script named above it; `make bench` runs those without arguments and writes this page.
Peers run in the same process run as ours, in turns; figures are medians. The machine was shared with other work:
compare ratios.
"""


def main() -> None:
    """Run the scripts and write the page."""
    wanted = sys.argv[1:] or [name for name in SCRIPTS if name not in OPTIONAL]
    for name in wanted:
        print(f"benchmarks/{name}.py", flush=True)
        given = OPTIONAL.get(name, [])
        command = [sys.executable, str(HERE / f"{name}.py"), *given]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        sections = _read()  # now, not before: another run may have written meanwhile
        shown = " ".join([f"python benchmarks/{name}.py", *given])
        sections[name] = f"## {SCRIPTS[name]}\n\n`{shown}`\n\n{out.strip()}\n"
        page = "\n".join([HEAD, *(sections[key] for key in SCRIPTS if key in sections)])
        PAGE.write_text(page, encoding="utf-8")


def _read() -> dict[str, str]:
    """Sections of the page as it is, by the script that printed them."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    parts = ["## " + part for part in text.split("\n## ")[1:]]
    return {name: part for part in parts for name in SCRIPTS if f"`python benchmarks/{name}.py" in part}


if __name__ == "__main__":
    main()
