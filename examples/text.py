"""Text to BPE tokens and back, exactly: `python examples/text.py [FILE]`."""

import sys
from pathlib import Path

import multitok
from multitok.frontend import media

path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data/text/world.txt"
tokenizer = multitok.load("bpe-32k")

text = media.read(path)  # str; invalid UTF-8 is refused with its position
codes = tokenizer.encode(text)  # int32 [1, n]
assert tokenizer.decode(codes) == text

num_bytes = len(text.encode())
ratio = num_bytes / codes.num_tokens
print(f"{path.name}: {num_bytes:,} bytes -> {codes.num_tokens:,} tokens, {ratio:.2f} bytes per token")
