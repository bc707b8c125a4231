"""Sound to spectrogram tokens and back: `python examples/audio.py [SOUND]` (WAV, FLAC, OGG, MP3, AIFF)."""

import sys
from pathlib import Path

import multitok
from multitok.frontend import media

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data/sounds/speech-russian-1.wav"
tokenizer = multitok.load("dmel-80hz")  # 80 frames a second x 80 mel bands x 16 levels

wave = media.read(path)  # Waveform at the file's own rate; any rate and channel count goes in
codes = tokenizer.encode(wave)  # int32 [80, frames]
back = tokenizer.decode(codes)  # Waveform, mono, 16 kHz, phases by Griffin-Lim

rate = codes.num_tokens / wave.duration_s
print(f"{path.name}: {wave.duration_s:.2f} s -> codes {codes.values.shape}, {rate:,.0f} tokens/s")
print("wrote", media.write(Path("audio-decoded.wav"), tokenizer.spec.modality, back))
