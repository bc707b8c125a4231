"""Flatten patterns: in which order the codes [K, *grid] of one segment enter a flat stream, and exactly back.

Shape letters: K codebooks, N grid positions, n tokens in the stream, S steps of K parallel streams.

A pattern is up to four words joined by "+": an order of positions, an order of codebooks, and separators.

| word | meaning |
|---|---|
| `raster` (default) | positions in reading order: the last grid axis runs fastest |
| `column` | the last two axes swapped: down the columns of each frame |
| `flat` (default) | a position's K codes stand next to each other |
| `parallel` | K streams side by side, one step per position |
| `delay`, `delay:0,1,2` | K streams, stream k shifted by its delay; `delay` alone means 0, 1, ..., K - 1 |
| `coarse-first`, `coarse-first:1,3` | all positions of a group of codebooks, then of the next; alone: groups of one |
| `row` | a row token after each run of the fastest axis |
| `frame` | a frame token after each run of the two fastest axes |

A [2, 3] grid with one codebook (R row token, F frame token):

    raster            column            raster+row+frame
      0 1 2             0 2 4             0 1 2 R
      3 4 5             1 3 5             3 4 5 R F

Four positions a b c d with three codebooks (. is the empty token); each column is one step of the model:

    parallel          delay:0,1,2           flat                        coarse-first
      a0 b0 c0 d0       a0 b0 c0 d0 .  .      a0 a1 a2 b0 b1 b2 ...       a0 b0 c0 d0 a1 b1 c1 d1 a2 ...
      a1 b1 c1 d1       .  a1 b1 c1 d1 .
      a2 b2 c2 d2       .  .  a2 b2 c2 d2

`parallel` and `delay` enter the stream step by step (a0 a1 a2 b0 ...), so the stream of `parallel` is that of
`flat`; they differ in `Plan.streams`, the [K, S] view for models that read K tokens at a step. Names are used as
AudioCraft uses them (its `flatten` is `flat`); AudioCraft's coarse-first, which puts the codebooks after the
first side by side, is `coarse-first:1,K-1`, and AudioLM's coarse and fine stages are two groups.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from multitok.errors import PatternError

POSITION_ORDERS = ("raster", "column")
CODEBOOK_ORDERS = ("flat", "parallel", "delay", "coarse-first")
SEPARATORS = ("row", "frame")

_MAX_DELAY = 2**20


@dataclass(frozen=True, slots=True)
class Pattern:
    """A flatten pattern, parsed once; a `Plan` applies it to a number of codebooks and a grid.

    Args:
        positions: "raster" or "column".
        codebooks: "flat", "parallel", "delay" or "coarse-first".
        numbers: Delay of each codebook, or size of each group of codebooks; () for the defaults.
        row: A row token after each run of the fastest axis.
        frame: A frame token after each run of the two fastest axes.

    Raises:
        PatternError: An unknown word, numbers that cannot be, separators inside parallel streams.
    """

    positions: str = "raster"
    codebooks: str = "flat"
    numbers: tuple[int, ...] = ()
    row: bool = False
    frame: bool = False

    def __post_init__(self) -> None:
        if self.positions not in POSITION_ORDERS or self.codebooks not in CODEBOOK_ORDERS:
            raise PatternError(
                f"positions={self.positions!r}, codebooks={self.codebooks!r}: give one of {', '.join(POSITION_ORDERS)} "
                f"and one of {', '.join(CODEBOOK_ORDERS)}"
            )
        least = {"delay": 0, "coarse-first": 1}.get(self.codebooks)
        if self.numbers and (least is None or not all(least <= i <= _MAX_DELAY for i in self.numbers)):
            raise PatternError(
                f"numbers {self.numbers} for {self.codebooks!r}: only delay (each from 0) and coarse-first (each from "
                f"1) take numbers, up to {_MAX_DELAY}"
            )
        if (self.row or self.frame) and self.num_streams(2) > 1:
            raise PatternError(
                f"row and frame tokens inside {self.codebooks!r}: its streams advance together, one step per position; "
                "use flat or coarse-first, or leave the separators out"
            )

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """The pattern that a string such as "raster+row" or "delay:0,1,2" names.

        Raises:
            PatternError: An unknown or doubled word.
        """
        fields: dict[str, Any] = {}
        for word in text.split("+"):
            key, colon, numbers = word.partition(":")
            if key in POSITION_ORDERS and not colon:
                new: dict[str, Any] = {"positions": key}
            elif key in CODEBOOK_ORDERS and (not colon or re.fullmatch(r"\d{1,7}(,\d{1,7})*", numbers)):
                new = {"codebooks": key, "numbers": tuple(int(i) for i in numbers.split(",")) if colon else ()}
            elif key in SEPARATORS and not colon:
                new = {key: True}
            else:
                words = ", ".join((*POSITION_ORDERS, *CODEBOOK_ORDERS, *SEPARATORS))
                raise PatternError(
                    f"pattern {text!r}: {word!r} is none of {words}; join words by '+', numbers follow as delay:0,1,2"
                )
            doubled = fields.keys() & new.keys()
            if doubled:
                raise PatternError(f"pattern {text!r} gives its {', '.join(sorted(doubled))} twice: give one")
            fields |= new
        return cls(**fields)

    def __str__(self) -> str:
        """The canonical string: what differs from raster and flat; "raster" where nothing does."""
        words = [self.positions] if self.positions != "raster" or self.codebooks == "flat" else []
        if self.codebooks != "flat":
            words.append(self.codebooks + (":" + ",".join(map(str, self.numbers)) if self.numbers else ""))
        return "+".join(words + [word for word in SEPARATORS if getattr(self, word)])

    def num_streams(self, num_codebooks: int) -> int:
        """How many tokens one step of the model takes: K for parallel and delay, else 1."""
        return num_codebooks if self.codebooks in ("parallel", "delay") else 1

    def resolved(self, num_codebooks: int) -> Pattern:
        """The pattern with its default numbers written out for K codebooks.

        Raises:
            PatternError: Given numbers do not fit K.
        """
        if self.codebooks == "delay":
            numbers = self.numbers or tuple(range(num_codebooks))
            if len(numbers) != num_codebooks:
                raise PatternError(f"{self}: {len(numbers)} delays for {num_codebooks} codebooks; give one for each")
        elif self.codebooks == "coarse-first":
            numbers = self.numbers or (1,) * num_codebooks
            if sum(numbers) != num_codebooks:
                raise PatternError(f"{self}: groups of {sum(numbers)} codebooks in all, there are {num_codebooks}")
        else:
            return self
        return replace(self, numbers=numbers)
