"""The autoencoder that tokenizers run: integers only, so the same codes and pixels everywhere.

A trained `VqAutoencoder` is frozen once: weights become int8 with one float32 scale per output channel, activations
8 bits, latents and code vectors multiples of 1 / LATENT_SCALE level. What remains of floating point is one correctly
rounded multiplication per value, which no library can do in another order. Codes therefore do not depend on batch,
tile, chunk, number of threads, library, processor or device.

    levels int16 [T, H, W, C] -> latents int32 [t, h, w, D] -> codes int32 [t, h, w, n] -> latents -> levels

Everything reaches a finite way (`reach`), so an array may be cut into tiles that overlap by that much. A memory dict
carries what nets with taps into the past need from one chunk of frames to the next.

T, H, W are multiples of the patch; t, h, w the grid, D latents, K codebooks of V codes in G tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multitok.codebook import Codebook
from multitok.errors import CodeRangeError, SpecError
from multitok.nets.autoencoder_config import AutoencoderConfig
from multitok.nets.engine import Stack, make_stack
from multitok.nets.patches import fold, unfold, with_neighbours
from multitok.nets.program import StackProgram
from multitok.nets.stack_tensors import programs

# A basis entry of 1.0, and a latent of one level.
BASIS_SCALE, LATENT_SCALE = 2**12, 2**3
# Levels reach from -128 to 127; integers are exact in float32 up to 2^24.
LARGEST_LEVEL, EXACT_FLOAT32 = 128, 2**24
# A unit of what the decoder stack adds, in levels.
OUTPUT_UNIT = 2.0**-4
# Latents enter a stack in standard deviations over NORMAL_SCALE, cut off at NORMAL_MOST.
NORMAL_SCALE, NORMAL_MOST = 2**8, 2**10 - 1
# Features of a position are in units of 1 / FEATURE_SCALE of sqrt(level); its neighbours' sum counts an eighth.
FEATURE_SCALE, NEIGHBOURS = 2**4, 8

Memory = dict[str, NDArray[np.int16]]


class Reach(NamedTuple):
    """How far a result may depend on its surroundings, in grid steps: `past` and `ahead` in time, `around` in space."""

    past: int
    ahead: int
    around: int


class IntegerAutoencoder:
    """Encoder and decoder in exact integer arithmetic; immutable.

    Args:
        config: The autoencoder's shape.
        tensors: What `freeze` made: "basis" int16 [L, D], "spread" float32 [D], "codebook_k" int8 [G, V, D]
            in steps of "codebook_step_k" int16 [D],
            "prototypes_k" int32 [G, 2 D], and weights, bias and scale of each stack's convolutions.

    Raises:
        SpecError: A tensor is missing, left over, or of another shape or dtype.
    """

    def __init__(self, config: AutoencoderConfig, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.config = config
        held = {key: np.array(value) for key, value in sorted(tensors.items())}
        for value in held.values():
            value.flags.writeable = False
        self.tensors: Mapping[str, NDArray[Any]] = held
        self._programs = programs(config, held)
        self._check()
        self._stacks: dict[str, Stack] = {}
        self._books: dict[int, list[Codebook]] = {}
        self._classifiers: dict[int, Codebook] = {}
        self._codebooks = [
            held[f"codebook_{k}"] * held[f"codebook_step_{k}"].astype(np.int32) for k in range(config.num_codebooks)
        ]
        # Exact either way, so both give the same latents; float32 is twice as fast.
        largest_sum = int(np.abs(held["basis"].astype(np.int64)).sum(0).max()) * LARGEST_LEVEL
        self._basis = held["basis"].astype(np.float32 if largest_sum <= EXACT_FLOAT32 else np.float64)
        self._expansion = held["basis"].T.astype(np.float64)
        spread = held["spread"].astype(np.float64)
        self._normal = (NORMAL_SCALE / (LATENT_SCALE * spread)).astype(np.float32)
        self._feature = (FEATURE_SCALE / (LATENT_SCALE * np.sqrt(spread))).astype(np.float32)

    @property
    def programs(self) -> Mapping[str, StackProgram]:
        """The stacks by name: "encoder", "decoder", "context_1" to "context_(K - 1)"."""
        return self._programs

    def codebook(self, k: int) -> NDArray[np.int32]:
        """[G, V, D] the tables of codebook k, in units of 1 / LATENT_SCALE level; not to be changed."""
        return self._codebooks[k]

    def encode_reach(self, num_codebooks: int | None = None) -> Reach:
        """How far a code depends on the pixels around, in grid steps."""
        config = self.config
        own = 0
        if config.encoder_blocks is not None:
            fine, coarse = config.encoder_blocks
            own = -(-(1 + 2 * fine) // 2) + 2 * coarse
        return self._reach(own, num_codebooks, config.encoder_blocks is not None, config.lookahead > 1)

    def decode_reach(self, num_codebooks: int | None = None) -> Reach:
        """How far a pixel depends on the codes around, in grid steps."""
        fine, coarse = self.config.decoder_blocks
        return self._reach(1 + 2 * coarse + -(-(1 + 2 * fine) // 2), num_codebooks, True, False)

    def _reach(self, own: int, num_codebooks: int | None, stack: bool, lookahead: bool) -> Reach:
        """Of a stack of reach `own`, if there is one, and of the context nets.

        Each context net reaches two steps, the classes after it one more. Looking ahead from a codebook asks the next
        one's net once before it is asked for good.
        """
        n = self.config.num_codebooks if num_codebooks is None else num_codebooks
        contexts = n - 1 + (min(n, self.config.num_codebooks - 1) if lookahead else 0)
        past, ahead = -min(self.config.taps), max(self.config.taps)
        return Reach(past * (contexts + stack), ahead * (contexts + stack), own + 3 * contexts)

    def encode_levels(
        self, levels: NDArray[np.int16], num_codebooks: int | None = None, memory: Memory | None = None
    ) -> NDArray[np.int32]:
        """Levels [T, H, W, C] to codes [t, h, w, n]; `memory` as in `latents`."""
        return self.encode(self.latents(levels, memory), num_codebooks, memory)

    def decode_levels(self, codes: NDArray[np.int32], memory: Memory | None = None) -> NDArray[np.float64]:
        """Codes [t, h, w, n] to levels [T, H, W, C]; `memory` as in `latents`."""
        return self.reconstruct(self.dequantize(codes, memory), memory)

    def latents(self, levels: NDArray[np.int16], memory: Memory | None = None) -> NDArray[np.int32]:
        """Stem and encoder.

        Args:
            levels: [T, H, W, C], from -128 to 127, T, H and W multiples of the patch.
            memory: Carried from one chunk of frames to the next, changed in place; None starts and ends here.

        Returns:
            [t, h, w, D] in units of 1 / LATENT_SCALE level.
        """
        patches = fold(levels, self.config.patch)
        linear = patches.astype(self._basis.dtype) @ self._basis
        linear *= LATENT_SCALE / BASIS_SCALE
        latents: NDArray[np.int32] = np.rint(linear, out=linear).astype(np.int32)
        if "encoder" in self._programs:
            fine = self._with_past("encoder", fold(levels, self.config.fine_patch), memory)
            latents += self._run("encoder", fine)
        return latents

    def encode(
        self, latents: NDArray[np.int32], num_codebooks: int | None = None, memory: Memory | None = None
    ) -> NDArray[np.int32]:
        """Codes of latents.

        Args:
            latents: [t, h, w, D].
            num_codebooks: How many codebooks to use, the first ones; None for all.
            memory: As in `latents`.

        Returns:
            [t, h, w, n].
        """
        n = self.config.num_codebooks if num_codebooks is None else num_codebooks
        if not 1 <= n <= self.config.num_codebooks:
            raise SpecError(f"num_codebooks={n}: this autoencoder has 1 to {self.config.num_codebooks}")
        codes = np.empty((*latents.shape[:-1], n), np.int32)
        decoded = np.zeros_like(latents)
        for k in range(n):
            predicted, table = self._predict(k, decoded, memory)
            if k < self.config.num_codebooks - 1:
                codes[..., k], decoded = self._choose(k, latents, predicted, table, memory)
            else:
                codes[..., k] = self._nearest(k, latents - predicted, table)[..., 0]
        return codes

    def dequantize(self, codes: NDArray[np.int32], memory: Memory | None = None) -> NDArray[np.int32]:
        """The latents that codes stand for.

        Args:
            codes: [t, h, w, n], of the first n codebooks.
            memory: As in `latents`.

        Returns:
            [t, h, w, D] int32.

        Raises:
            CodeRangeError: A code lies outside its codebook.
            SpecError: More codebooks than there are.
        """
        if not 1 <= codes.shape[-1] <= self.config.num_codebooks:
            raise SpecError(f"codes of {codes.shape[-1]} codebooks: this autoencoder has {self.config.num_codebooks}")
        decoded = np.zeros((*codes.shape[:-1], self.config.latent_dim), np.int32)
        for k, size in enumerate(self.config.codebook_sizes[: codes.shape[-1]]):
            own = codes[..., k]
            if own.size and (own.min() < 0 or own.max() >= size):
                bad = own[(own < 0) | (own >= size)][0]
                raise CodeRangeError(f"code {bad} in codebook {k}: allowed are 0 to {size - 1}")
            predicted, table = self._predict(k, decoded, memory)
            decoded = predicted + self._codebooks[k][table, own]
        return decoded

    def reconstruct(self, latents: NDArray[np.int32], memory: Memory | None = None) -> NDArray[np.float64]:
        """The levels that latents stand for.

        Args:
            latents: [t, h, w, D].
            memory: As in `latents`.

        Returns:
            [T, H, W, C] float64, exact multiples of 2^-15; not limited to the range of levels.
        """
        levels = unfold(latents.astype(np.float64) @ self._expansion, self.config.patch)
        branch = self._run("decoder", self._with_past("decoder", self._normalized(latents), memory))
        levels *= 1 / (LATENT_SCALE * BASIS_SCALE)
        levels += unfold(branch, self.config.fine_patch) * OUTPUT_UNIT
        return levels

    def _choose(
        self,
        k: int,
        latents: NDArray[np.int32],
        predicted: NDArray[np.int32],
        table: NDArray[np.intp],
        memory: Memory | None,
    ) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Codes of codebook k and what they decode to: those of the nearest that let codebook k + 1 come closest.

        What the contexts will say is taken from the nearest codes everywhere, so positions are chosen independently.
        Distances are exact integers, of equal ones the first wins.
        """
        rows = self._codebooks[k]
        nearest = self._nearest(k, latents - predicted, table, self.config.lookahead)
        codes, decoded = nearest[..., 0], predicted + rows[table, nearest[..., 0]]
        if self.config.lookahead == 1:
            return codes, decoded
        following, next_table = self._predict(k + 1, decoded, memory, "lookahead")
        said = following - decoded
        candidates = np.moveaxis(nearest, -1, 0)
        after = predicted + rows[table, candidates]
        left = latents - said - after
        tables = np.broadcast_to(next_table, candidates.shape)
        left -= self._codebooks[k + 1][tables, self._nearest(k + 1, left, tables)[..., 0]]
        best = np.einsum("mthwd,mthwd->mthw", left, left, dtype=np.float64).argmin(0)[None]
        codes = np.take_along_axis(candidates, best, 0)[0]
        return codes, np.take_along_axis(after, best[..., None], 0)[0]

    def _predict(
        self, k: int, decoded: NDArray[np.int32], memory: Memory | None, purpose: str = "context"
    ) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
        """What the latents decoded so far say of the next ones, and the table of codebook k at each position."""
        if k == 0:
            return decoded, np.zeros(decoded.shape[:-1], np.intp)
        context = self._with_past(f"{purpose}_{k}", self._normalized(decoded), memory)
        predicted = self._run(f"context_{k}", context)
        predicted += decoded
        if self.config.tables == 1:
            return predicted, np.zeros(decoded.shape[:-1], np.intp)
        own = np.rint(np.abs(predicted).astype(np.float32) * self._feature)
        padded = np.pad(own, ((0, 0), (1, 1), (1, 1), (0, 0)))
        h, w = own.shape[1:3]
        rows = padded[:, :h] + padded[:, 1 : h + 1] + padded[:, 2:]
        around = rows[:, :, :w] + rows[:, :, 1 : w + 1] + rows[:, :, 2:]
        around -= own
        features = np.concatenate([own * NEIGHBOURS, around], -1)
        if k not in self._classifiers:
            self._classifiers[k] = Codebook(self.tensors[f"prototypes_{k}"].astype(np.float32))
        table = self._classifiers[k].search(features.reshape(-1, features.shape[-1])).codes
        return predicted, table.reshape(own.shape[:-1]).astype(np.intp)

    def _nearest(
        self, k: int, residual: NDArray[np.int32], table: NDArray[np.intp], count: int = 1
    ) -> NDArray[np.int32]:
        """The nearest codes to each residual [t, h, w, D] in its table, nearest first: [t, h, w, count]."""
        if k not in self._books:
            self._books[k] = [Codebook(rows.astype(np.float32)) for rows in self._codebooks[k]]
        flat = residual.reshape(-1, residual.shape[-1]).astype(np.float32)
        books, codes = self._books[k], np.empty((len(flat), count), np.int32)
        order = np.argsort(table, axis=None, kind="stable") if len(books) > 1 else np.arange(len(flat))
        ends = np.cumsum(np.bincount(table.ravel(), minlength=len(books)))
        for book, start, end in zip(books, [0, *ends[:-1]], ends, strict=True):
            if end > start:
                rows = order[start:end]
                found = book.search(flat[rows], k=count if count > 1 else None).codes
                codes[rows] = found.reshape(-1, count)
        return codes.reshape(*table.shape, count)

    def _normalized(self, latents: NDArray[np.int32]) -> NDArray[np.int16]:
        """Latents in standard deviations, as the context and decoder stacks read them."""
        scaled = latents.astype(np.float32) * self._normal
        return np.clip(np.rint(scaled, out=scaled), -NORMAL_MOST, NORMAL_MOST, out=scaled).astype(np.int16)

    def _with_past(self, name: str, frames: NDArray[np.int16], memory: Memory | None) -> NDArray[np.int16]:
        """Frames beside their neighbours in time; the memory keeps the last ones for the next chunk."""
        past = -min(self.config.taps)
        if memory is None or not past:
            return with_neighbours(frames, self.config.taps)
        if max(self.config.taps):
            raise SpecError("this autoencoder looks ahead in time: encode and decode its frames whole")
        before = memory.get(name)
        memory[name] = np.ascontiguousarray(frames[-past:])
        return with_neighbours(frames, self.config.taps, before)

    def _run(self, name: str, values: NDArray[np.int16]) -> NDArray[np.int32]:
        if name not in self._stacks:
            self._stacks[name] = make_stack(self._programs[name])
        return self._stacks[name].run(values)

    def _check(self) -> None:
        config, d = self.config, self.config.latent_dim
        wanted: dict[str, tuple[type, tuple[int, ...]]] = {
            "basis": (np.int16, (config.patch_length, d)),
            "spread": (np.float32, (d,)),
        }
        for k, size in enumerate(config.codebook_sizes):
            wanted[f"codebook_{k}"] = (np.int8, (config.tables_of(k), size, d))
            wanted[f"codebook_step_{k}"] = (np.int16, (d,))
            if k:
                wanted[f"prototypes_{k}"] = (np.int32, (config.tables, 2 * d))
        for key, (dtype, shape) in wanted.items():
            found = self.tensors.get(key)
            if found is None or found.dtype != dtype or found.shape != shape:
                given = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
                raise SpecError(f"{key} is {given}: this configuration needs {np.dtype(dtype)} {list(shape)}")
        spread = self.tensors["spread"]
        if not (np.isfinite(spread).all() and (spread > 0).all()):
            raise SpecError("spread holds a value that is not positive and finite: its training failed")
        surplus = {key for key in self.tensors if key not in wanted and key.partition(".")[0] not in self._programs}
        if surplus:
            raise SpecError(f"unknown tensors {', '.join(sorted(surplus))}: they belong to another configuration")
