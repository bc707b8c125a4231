"""Memory for an hour of sound: `python benchmarks/audio_memory.py [--quick] [CHECKPOINT ...]`

Runs `multitok encode` on a file of an hour (16 kHz mono, 44.1 kHz stereo; with --quick two minutes) and `multitok
decode` on its codes, to WAV, each in a process of its own, and prints the peak resident memory (VmHWM of /proc) with
Python and all libraries, torch too where it is loaded. `idle` is a process that has loaded the tokenizer and encoded
one second. Without checkpoints all shipped sound tokenizers that stream are measured. --decode-s limits what is decoded
(the codes of the first seconds), since some decoders take longer than the encoder by far.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

WANTED_MB = 400


def peak_mb() -> float:
    """VmHWM of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def write_sound(path: Path, rate_hz: int, channels: int, duration_s: int) -> None:
    """Ten seconds of gliding tones and noise, over and over, 16 bits."""
    import soundfile

    t = np.arange(10 * rate_hz) / rate_hz
    noise = np.random.default_rng(0).normal(0, 0.02, (t.size, channels))
    loop = (0.3 * np.sin(2 * np.pi * (200 * t + 40 * t**2)))[:, None] + noise
    with soundfile.SoundFile(path, "w", rate_hz, channels, "PCM_16") as file:
        for _ in range(duration_s // 10):
            file.write(loop)


def child(task: str, checkpoint: str, source: str, out: str) -> None:
    """One measurement, printed as JSON."""
    started = time.perf_counter()
    if task == "idle":
        import multitok

        tokenizer = multitok.load(checkpoint)
        tokenizer.encode(multitok.Waveform(np.zeros(16_000), 16_000))
    else:
        from multitok.cli import cli

        chosen = ["--with", checkpoint] if task == "encode" else []
        cli.main([task, source, *chosen, "--out", out], standalone_mode=False)
    loaded = "torch" in sys.modules
    print(json.dumps({"peak_mb": peak_mb(), "seconds": time.perf_counter() - started, "torch": loaded}))


def measure(*arguments: str) -> dict[str, Any]:
    """`child` in a process of its own."""
    command = [sys.executable, __file__, "--child", *arguments]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return found


def cut_codes(path: Path, duration_s: float) -> None:
    """Keep the codes of the first seconds."""
    from multitok.codes_file import read_codes, write_codes
    from multitok.protocol import Codes

    stored = read_codes(path)
    tokenizer = stored.load_tokenizer()
    ((key, codes),) = stored.items
    hop, rate_hz = stored.spec.stride[0], stored.spec.sample_rate_hz
    assert rate_hz is not None
    num_frames = min(int(duration_s * rate_hz) // hop, codes.grid[0])
    kept = Codes(codes.values[:, :num_frames], (min(num_frames * hop, codes.extent[0]),))
    write_codes(path, tokenizer, stored.source, [(key, kept)])


def streaming_checkpoints() -> list[str]:
    """Names of the shipped sound tokenizers that stream."""
    import multitok
    from multitok.checkpoint import shipped_checkpoints
    from multitok.protocol import Modality, StreamingTokenizer

    loaded = ((name, multitok.load(name)) for name in sorted(shipped_checkpoints()))
    return [name for name, it in loaded if it.spec.modality is Modality.AUDIO and isinstance(it, StreamingTokenizer)]


def main() -> None:
    """Measure and print the table."""
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", nargs="*")
    parser.add_argument("--quick", action="store_true", help="two minutes instead of an hour")
    parser.add_argument("--decode-s", type=float, default=3600, help="seconds of sound to decode")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON alone")
    options = parser.parse_args()
    duration_s = 120 if options.quick else 3600
    decode_s = min(options.decode_s, duration_s)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for rate_hz, channels in ((16_000, 1), (44_100, 2)):
            path = Path(folder) / f"{rate_hz}-{channels}.wav"
            write_sound(path, rate_hz, channels, duration_s)
            for checkpoint in options.checkpoints or streaming_checkpoints():
                codes, back = f"{path}.codes", f"{path}.back.wav"
                row: dict[str, Any] = {"checkpoint": checkpoint, "rate_hz": rate_hz, "channels": channels}
                row["idle"] = measure("idle", checkpoint, str(path), codes)
                row["encode"] = measure("encode", checkpoint, str(path), codes)
                if decode_s < duration_s:
                    cut_codes(Path(codes), decode_s)
                row["decode"] = measure("decode", checkpoint, codes, back)
                rows.append(row)
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{describe()}; {duration_s} s of sound encoded, {decode_s:g} s decoded\n")
    print("| tokenizer | sound | idle | encode, peak | times real time | decode, peak | times real time | torch |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        idle, encode, decode = row["idle"], row["encode"], row["decode"]
        sound = f"{row['rate_hz'] / 1000:g} kHz, {'stereo' if row['channels'] == 2 else 'mono'}"
        speeds = [f"{s / part['seconds']:.0f}" for s, part in ((duration_s, encode), (decode_s, decode))]
        print(
            f"| `{row['checkpoint']}` | {sound} | {idle['peak_mb']:.0f} MB | {encode['peak_mb']:.0f} MB | {speeds[0]} "
            f"| {decode['peak_mb']:.0f} MB | {speeds[1]} | {'yes' if encode['torch'] else 'no'} |"
        )
    worst = max(row[task]["peak_mb"] for row in rows for task in ("encode", "decode"))
    print(f"\nmost: {worst:.0f} MB, wanted at most {WANTED_MB} MB")


if __name__ == "__main__":
    main()
