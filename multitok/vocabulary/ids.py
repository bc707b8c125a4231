"""What the IDs of a vocabulary mean: codes to IDs, IDs to codes, streams of IDs to runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import CodeRangeError, ShapeError, VocabularyError
from multitok.protocol import Codes, Modality, TokenizerSpec
from multitok.vocabulary.blocks import Block, Run, TokenizerEntry
from multitok.vocabulary.index import RESERVED, SPECIAL, IdIndex
from multitok.vocabulary.layout import check_layout

# Below this size IDs are stored in two bytes; Megatron's own cut-off, so that its reader expects what we write.
UINT16_VOCAB_SIZE = 65_500

_CODE_REFERENCE = re.compile(r"(?P<name>[^\s<>|/:]+):(?P<codebook>\d+):(?P<code>\d+)")


@dataclass(frozen=True, eq=False, repr=False)
class IdSpace:
    """The layout of a `Vocabulary`, and all mappings between codes and IDs; how it is made and kept is the subclass's.

    IDs that neither a special token nor a block claims are reserved: they stand for nothing yet.

    Args:
        entries: The tokenizers by name, in order.
        specials: ID of each special token.
        blocks: One per codebook of each tokenizer.
        vocab_size: Number of IDs, reserved ones and padding included.

    Raises:
        VocabularyError: An ID with two meanings or outside the vocabulary, a codebook without its block.
    """

    entries: Mapping[str, TokenizerEntry]
    specials: Mapping[str, int]
    blocks: tuple[Block, ...]
    vocab_size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", dict(self.entries))
        object.__setattr__(self, "specials", dict(self.specials))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        check_layout(self.entries, self.specials, self.blocks, self.vocab_size)
        assert self._index  # IDs with two owners show here, not at first use

    @cached_property
    def _index(self) -> IdIndex:
        return IdIndex(self.vocab_size, self.specials, self.blocks)

    @cached_property
    def _blocks_of(self) -> dict[str, tuple[Block, ...]]:
        found: dict[str, list[Block]] = {name: [] for name in self.entries}
        for block in sorted(self.blocks, key=lambda block: block.codebook):
            found[block.name].append(block)
        return {name: tuple(blocks) for name, blocks in found.items()}

    @cached_property
    def _number_of(self) -> dict[tuple[str, int], int]:
        return {(block.name, block.codebook): number for number, block in enumerate(self.blocks)}

    @cached_property
    def _token_of(self) -> dict[int, str]:
        return {i: token for token, i in self.specials.items()}

    @property
    def dtype(self) -> np.dtype[Any]:
        """How IDs are stored: uint16 below 65,500 IDs, else int32. The size decides, never the data."""
        return np.dtype(np.uint16 if self.vocab_size < UINT16_VOCAB_SIZE else np.int32)

    @property
    def reserved(self) -> tuple[tuple[int, int], ...]:
        """[start, stop) ranges of IDs that stand for nothing yet: reserved slots and padding."""
        return self._index.reserved

    @cached_property
    def predictable(self) -> NDArray[np.bool_]:
        """[vocab_size] whether a model may predict the ID: neither reserved nor in an input-only block."""
        mask = np.ones(self.vocab_size, np.bool_)
        for start, stop in self.reserved:
            mask[start:stop] = False
        for block in self.blocks:
            if block.input_only:
                mask[slice(*block.intervals[0]) if block.table is None else block.table] = False
        mask.flags.writeable = False
        return mask

    def names_by_modality(self, modality: Modality | str) -> tuple[str, ...]:
        """Names of the tokenizers of one modality, in order."""
        wanted = Modality(modality)
        return tuple(name for name, entry in self.entries.items() if entry.spec.modality is wanted)

    def entry(self, name: str) -> TokenizerEntry:
        """The entry of a tokenizer.

        Raises:
            VocabularyError: No tokenizer of that name; lists those there are.
        """
        if name not in self.entries:
            raise VocabularyError(
                f"no tokenizer {name!r} in this vocabulary; it has {', '.join(self.entries) or 'none'}"
            )
        return self.entries[name]

    def spec(self, name: str) -> TokenizerSpec:
        """The specification of a tokenizer."""
        return self.entry(name).spec

    def blocks_of(self, name: str) -> tuple[Block, ...]:
        """The blocks of a tokenizer, codebook 0 first."""
        self.entry(name)
        return self._blocks_of[name]

    def id_of(self, token: str) -> int:
        """ID of a special token, or of one code.

        Args:
            token: A special token's name, or "tokenizer:codebook:code" such as "text:0:15".
        Returns:
            The ID.
        Raises:
            VocabularyError: No such special token or tokenizer.
            CodeRangeError: The codebook has no such code.
        """
        if token in self.specials:
            return self.specials[token]
        match = _CODE_REFERENCE.fullmatch(token)
        if match is None or match["name"] not in self.entries:
            raise VocabularyError(
                f"no special token {token!r} in this vocabulary; add it by build(special_tokens=...), extend or "
                "name_reserved, or write a code as 'tokenizer:codebook:code'"
            )
        blocks, codebook, code = self._blocks_of[match["name"]], int(match["codebook"]), int(match["code"])
        if codebook >= len(blocks) or code >= blocks[codebook].size:
            sizes = self.spec(match["name"]).codebook_sizes
            raise CodeRangeError(f"{token!r}: the codebooks of {match['name']!r} have {sizes} codes, counted from 0")
        block = blocks[codebook]
        return int(block.table[code]) if block.table is not None else code + int(block.start or 0)

    def describe(self, token_id: int) -> str:
        """What one ID means, in words, for messages: "code 7 of codebook 0 of 'image'"."""
        if not 0 <= token_id < self.vocab_size:
            return f"outside the vocabulary of {self.vocab_size} IDs"
        owner, local = (int(a[0]) for a in self._index.locate(np.asarray([token_id])))
        if owner == SPECIAL:
            return f"special token {self._token_of[token_id]!r}"
        if owner == RESERVED:
            return "reserved"
        return f"code {local} of codebook {self.blocks[owner].codebook} of {self.blocks[owner].name!r}"

    # ---- codes <-> IDs

    def to_ids(self, name: str, codes: Codes) -> NDArray[np.int32]:
        """IDs of codes.

        Args:
            name: The tokenizer's name.
            codes: What it encoded something to.
        Returns:
            [K, *grid] int32.
        Raises:
            VocabularyError: No tokenizer of that name.
            ShapeError: The codes have another number of codebooks or axes.
            CodeRangeError: A code lies outside its codebook.
        """
        self.spec(name).check(codes)
        ids = np.empty(codes.values.shape, np.int32)
        for block, values, out in zip(self._blocks_of[name], codes.values, ids, strict=True):
            if block.table is None:
                np.add(values, np.int32(block.start or 0), out=out)
            else:
                np.take(block.table, values, out=out)
        return ids

    def to_codes(self, name: str, ids: NDArray[np.integer[Any]], extent: Sequence[int] | None = None) -> Codes:
        """Codes that the IDs [K, *grid] of tokenizer `name` stand for; inverts `to_ids`.

        Args:
            name: The tokenizer's name.
            ids: [K, *grid] integers.
            extent: Raw size along each grid axis; None takes what a full grid covers.
        Returns:
            The codes.
        Raises:
            VocabularyError: No tokenizer of that name.
            ShapeError: Another number of codebooks or axes.
            CodeRangeError: An ID of something else; says of what.
        """
        spec = self.spec(name)
        ids = np.asarray(ids)
        if ids.ndim != 1 + len(spec.grid_axes) or ids.shape[0] != spec.num_codebooks or ids.dtype.kind not in "iu":
            raise ShapeError(
                f"IDs of shape {list(ids.shape)} and dtype {ids.dtype} for {name!r}: give integers "
                f"[{', '.join([str(spec.num_codebooks), *spec.grid_axes])}]"
            )
        values = np.empty(ids.shape, np.int32)
        for block, given, out in zip(self._blocks_of[name], ids, values, strict=True):
            if given.size == 0:
                continue
            if block.table is None:
                start = int(block.start or 0)
                if given.min() < start or given.max() >= start + block.size:
                    self._refuse(block, given, (given < start) | (given >= start + block.size))
                np.subtract(given, start, out=out, casting="unsafe")
            else:
                self._check_known(given)
                owners, local = self._index.locate(given)
                wrong = owners != self._number_of[block.name, block.codebook]
                if wrong.any():
                    self._refuse(block, given, wrong)
                out[...] = local
        return Codes(values, tuple(extent) if extent is not None else spec.full_extent(ids.shape[1:]))

    def _refuse(self, block: Block, ids: NDArray[np.integer[Any]], wrong: NDArray[np.bool_]) -> None:
        bad = int(ids[wrong][0])
        raise CodeRangeError(
            f"ID {bad} where codebook {block.codebook} of {block.name!r} is due: in this vocabulary it is "
            f"{self.describe(bad)}; these IDs were cut at the wrong place or belong to another vocabulary"
        )

    def _check_known(self, ids: NDArray[np.integer[Any]]) -> None:
        if ids.dtype.kind not in "iu":
            raise ShapeError(f"IDs of dtype {ids.dtype}: give integers")
        if ids.size and (ids.min() < 0 or ids.max() >= self.vocab_size):
            wrong = (ids < 0) | (ids >= self.vocab_size)
            where = int(np.flatnonzero(wrong)[0])
            raise CodeRangeError(
                f"ID {int(ids.flat[where])} at position {where}: this vocabulary has the IDs 0 to "
                f"{self.vocab_size - 1}; they belong to another vocabulary"
            )

    # ---- streams of IDs

    def locate(self, ids: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """What each ID is, for streams of any shape.

        Args:
            ids: Integers of any shape.
        Returns:
            Owners: index into `blocks`, -1 for a special token, -2 for a reserved ID. Local IDs: the code, or
            the rank among the IDs that no block owns.
        Raises:
            CodeRangeError: An ID outside the vocabulary.
        """
        ids = np.asarray(ids)
        self._check_known(ids)
        return self._index.locate(ids)

    def split(self, ids: NDArray[np.integer[Any]], *, per_codebook: bool = False) -> list[Run]:
        """Cut a stream of IDs, such as a model's output, where its owner changes.

        Args:
            ids: [n] integers.
            per_codebook: Cut between codebooks of one tokenizer too.
        Returns:
            Runs that follow each other without gaps: of one tokenizer, of reserved IDs, or one special token.
        Raises:
            CodeRangeError: An ID outside the vocabulary.
        """
        ids = np.asarray(ids).reshape(-1)
        owners, _ = self.locate(ids)
        if not owners.size:
            return []
        names = list(self.entries)
        keys = owners
        if not per_codebook:
            # Owners -2 and -1 index the last two rows of this table.
            table = np.asarray([*(names.index(block.name) for block in self.blocks), RESERVED, SPECIAL])
            keys = table[owners]
        cut = (keys[1:] != keys[:-1]) | (owners[1:] == SPECIAL)
        starts = np.concatenate([[0], np.flatnonzero(cut) + 1, [len(ids)]])
        runs = []
        for start, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            owner = int(owners[start])
            if owner == SPECIAL:
                runs.append(Run("special", self._token_of[int(ids[start])], None, start, stop - start))
            elif owner == RESERVED:
                runs.append(Run("reserved", "", None, start, stop - start))
            else:
                block = self.blocks[owner]
                runs.append(Run("codes", block.name, block.codebook if per_codebook else None, start, stop - start))
        return runs

    @property
    def tables(self) -> tuple[tuple[str, int, int], ...]:
        """The non-unified view's tables, (tokenizer, codebook, size); table 0 holds all IDs outside blocks."""
        return (("", 0, self._index.num_unowned), *((b.name, b.codebook, b.size) for b in self.blocks))

    def local(self, ids: NDArray[np.integer[Any]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """The non-unified view, for models with one embedding table per codebook.

        Args:
            ids: Integers of any shape.
        Returns:
            Table: 0 for special and reserved IDs, 1 + b for block b. Row in it: the code; in table 0 the rank
            among the IDs outside blocks.
        Raises:
            CodeRangeError: An ID outside the vocabulary.
        """
        owners, local = self.locate(ids)
        return np.maximum(owners, -1) + np.int32(1), local

    def from_local(self, tables: NDArray[np.integer[Any]], rows: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """IDs of the pairs that `local` returned.

        Args:
            tables: Integers of any shape.
            rows: Integers of a shape that fits.
        Returns:
            IDs, int32.
        Raises:
            CodeRangeError: A table or row that does not exist.
        """
        tables, rows = np.broadcast_arrays(tables, rows)
        ids = np.full(tables.shape, -1, np.int32)
        for number, (name, codebook, size) in enumerate(self.tables):
            here = tables == number
            local = rows[here]
            if local.size and (local.min() < 0 or local.max() >= size):
                what = f"codebook {codebook} of {name!r}" if number else "special and reserved IDs"
                raise CodeRangeError(f"rows up to {local.max()} in table {number} ({what}): it has {size}")
            if number == 0:
                ids[here] = self._index.unowned(local)
            else:
                block = self.blocks[number - 1]
                ids[here] = local + int(block.start or 0) if block.table is None else block.table[local]
        if (ids < 0).any():
            raise CodeRangeError(
                f"table {int(tables[ids < 0][0])}: this vocabulary has the tables 0 to {len(self.blocks)}"
            )
        return ids
