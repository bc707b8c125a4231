"""Sound to codes while it comes in: `python examples/live_audio.py [SOUND] [--checkpoint NAME] [--chunk-ms 20]`

Plays a file's chunks as a microphone would deliver them (with --realtime at their own pace), prints the codes of each
chunk and what the push cost, and decodes the codes as they come to live-decoded.wav.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import multitok
from multitok.frontend import media

parser = argparse.ArgumentParser()
parser.add_argument("sound", nargs="?", type=Path, default=Path(__file__).parent / "data/sounds/speech-russian-1.wav")
parser.add_argument("--checkpoint", default="dmel-80hz")
parser.add_argument("--chunk-ms", type=float, default=20)
parser.add_argument("--realtime", action="store_true")
options = parser.parse_args()


def microphone() -> Iterator[multitok.Waveform]:
    """Chunks as they come: replace it by your sound device's."""
    for chunk in media.iter_audio(options.sound, chunk_s=options.chunk_ms / 1000):
        time.sleep(chunk.duration_s if options.realtime else 0)
        yield chunk


tokenizer = multitok.load(options.checkpoint)
assert isinstance(tokenizer, multitok.StreamingTokenizer), f"{options.checkpoint} does not stream"
first = next(microphone())
parts, sounds, costs_ms, seconds = [], [], [], 0.0

with (
    tokenizer.stream(sample_rate_hz=first.sample_rate_hz, channels=len(first.samples)) as stream,
    tokenizer.decode_stream() as speaker,
):
    for chunk in microphone():
        started = time.perf_counter()
        codes = stream.push(chunk.samples)  # int32 [codebooks, frames that are known now]
        costs_ms.append((time.perf_counter() - started) * 1000)
        seconds += chunk.duration_s
        shown = " ".join(map(str, codes[0].tolist()))
        print(f"{seconds:7.3f} s  {costs_ms[-1]:6.2f} ms  {codes.shape[1]} frames  {shown}")
        parts.append(codes)
        sounds.append(speaker.push(codes))
    parts.append(stream.flush())
    sounds += [speaker.push(parts[-1]), speaker.flush(stream.num_samples)]

codes = np.concatenate(parts, axis=1)
whole = tokenizer.encode(media.read(options.sound))
assert np.array_equal(codes, whole.values), "a stream's codes are those of the whole clip, bit for bit"
assert np.array_equal(np.concatenate(sounds), tokenizer.decode(whole).samples[0])
print(f"{codes.size:,} tokens of {seconds:.2f} s; a push of {options.chunk_ms:g} ms took {np.median(costs_ms):.2f} ms")
print("wrote", media.write_audio("live-decoded.wav", sounds, tokenizer.spec.sample_rate_hz))
