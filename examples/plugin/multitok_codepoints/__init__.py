"""A complete tokenizer in 25 lines: text as Unicode code points."""

import numpy as np

from multitok import Codes, Modality, TokenizerBase, TokenizerSpec


class TextCodepoints(TokenizerBase[str]):
    """Each character is one code: exact, 1,114,112 codes."""

    def __init__(self, name: str = "codepoints") -> None:
        self._name = name

    @property
    def spec(self) -> TokenizerSpec:
        return TokenizerSpec(
            kind="text-codepoints", name=self._name, modality=Modality.TEXT,
            codebook_sizes=(0x110000,), grid_axes=("t",), stride=(1,), lossless=True,
        )  # fmt: skip

    def encode(self, raw: str, /) -> Codes:
        return Codes(np.array([[ord(char) for char in raw]], np.int32), extent=(len(raw),))

    def decode(self, codes: Codes, /) -> str:
        self.spec.check(codes)
        return "".join(map(chr, codes.values[0].tolist()))

    def get_config(self) -> dict[str, object]:
        return {"name": self._name}
