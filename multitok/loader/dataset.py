"""The torch side: documents one by one, or packed rows with a state that resumes anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from multitok.errors import LoaderError, SpecError
from multitok.loader.assemble import NO_DOCUMENT, Assembler, Pieces
from multitok.loader.corpus import Corpus, Folders
from multitok.loader.order import DocumentOrder
from multitok.loader.packing import START, Packer, Packing, Place, RowPlan
from multitok.loader.stretches import Stretches
from multitok.protocol import Json

if TYPE_CHECKING:
    from multitok.interleave import TokenSequence
    from multitok.vocabulary import Vocabulary

STATE_VERSION = 1


class _Stand(NamedTuple):
    """Where a stream stands.

    Args:
        place: The place in the data.
        num_rows: Rows given up to there.
        turn: In a DataLoader worker that has given a batch: batches of other workers before its next one, and the
            number of workers.
    """

    place: Place
    num_rows: int
    turn: tuple[int, int] | None


class TokenShardDataset(Dataset[dict[str, Any]]):
    """Documents by number, whole and unpacked, for a torch sampler or for looking around.

    Item i has `input_ids`, `labels`, `position_ids`, `document_ids`, `modality_ids` (int64 [n]), `loss_weights`
    (float32 [n]), `cu_seqlens` (int32, [0, n]) and `max_seqlen` (int); see `PackedDataset` for what they mean.

    Args:
        folders: One folder with a `manifest.json`, or several of one vocabulary.
        vocabulary: The vocabulary (or its fingerprint) that the model works with; None takes what is there.
        loss_weights: Weight of a token in the loss, by its modality or "structure"; 1 where absent.

    Raises:
        ShardError: An output is unfinished, or a file is missing or cut short.
        FingerprintError: The folders are of different vocabularies, or not of the one given.
    """

    def __init__(
        self,
        folders: Folders,
        *,
        vocabulary: Vocabulary | str | None = None,
        loss_weights: Mapping[str, float] | None = None,
    ) -> None:
        self._corpus = Corpus(folders, vocabulary)
        self._assemble = Assembler(self._corpus, 0, loss_weights or {})

    def __len__(self) -> int:
        return len(self._corpus)

    def __getitem__(self, document: int) -> dict[str, Any]:
        return _to_torch(self._assemble(self._whole(document)))

    def sequence(self, document: int) -> TokenSequence:
        """One document with its spans and its id, as `Interleaver.decode` takes it."""
        self._whole(document)
        return self._corpus.sequence(document)

    def _whole(self, document: int) -> Pieces:
        if not 0 <= document < len(self):
            raise IndexError(f"document {document}: there are {len(self)}, from 0")
        length = self._corpus.lengths(np.array([document]))
        return Pieces(np.array([document]), np.zeros(1, np.int64), length)


class PackedDataset(IterableDataset[dict[str, Any]]):
    """Rows of exactly L tokens, packed with documents, in a seeded order that any number of ranks shares.

    A batch has B rows (or is one row of shape [L], without `batch_size`):

    | field          | shape, dtype   | what                                                                     |
    |----------------|----------------|--------------------------------------------------------------------------|
    | `input_ids`    | [B, L] int64   | token IDs; `pad_id` behind a row's last piece                            |
    | `labels`       | [B, L] int64   | the next token of the same document (already shifted), else -100         |
    | `position_ids` | [B, L] int64   | restart at 0 with each piece of a document                               |
    | `document_ids` | [B, L] int64   | number of the document in the folders; -1 for padding                    |
    | `modality_ids` | [B, L] int64   | `MODALITY_IDS`: 0 structure tokens and padding, 1 text, 2 image ...      |
    | `loss_weights` | [B, L] float32 | weight of the label's modality; 0 where the label is -100                |
    | `cu_seqlens`   | [P + 1] int32  | bounds of the pieces (padding is one) in the flattened rows, from 0 to BL |
    | `max_seqlen`   | int            | longest piece                                                            |
    | `place`        | [4] int64      | what `state_dict(batch)` reads: the place in the data after this batch   |

    The stream of rows depends on folders, seed, packing and length alone. A global batch is the next
    `world_size * batch_size` rows (1 row a rank without `batch_size`), dealt to the ranks in order, so the concatenated
    global batches are the same for any number of ranks, and a state resumes with another number. Every rank gets the
    same number of batches: the last is filled with rows of padding where rows run out.

    Iterating starts at the beginning, or where `load_state_dict` pointed, and gives all passes, each in an order of
    its own. `state_dict` tells where the latest iteration stands.

    With `DataLoader(dataset, batch_size=None, num_workers=n)` the workers take turns batch by batch, and the order is
    that of no workers. Workers read ahead, so then ask for the state *after a batch you have used*:
    `dataset.state_dict(batch)`. torchdata's `StatefulDataLoader` keeps the workers' states itself.

    Args:
        folders: One folder with a `manifest.json`, or several of one vocabulary.
        sequence_length: L.
        packing: "concat_split" cuts documents at row ends and pads nothing; "first_fit" and "best_fit" keep documents
            up to L whole and pad a little.
        batch_size: Rows per batch and rank; None for single rows.
        seed: Fixes the order.
        shuffle: False reads the documents as they lie.
        shuffle_tokens: Documents longer than this are shuffled as stretches of this many tokens, so that an hour of
            sound does not fill thousands of batches in a row; None keeps documents together. Two stretches of a
            document may share a row: attend by `cu_seqlens`, or by where `position_ids` restart.
        epochs: Passes over the data; None never ends.
        rank: This process's number, below `world_size`.
        world_size: Processes that share the data.
        vocabulary: The vocabulary (or its fingerprint) that the model works with; None takes what is there.
        loss_weights: Weight of a token in the loss, by its modality or "structure"; 1 where absent.
        pad_id: ID for padding, `vocabulary.id_of("<|pad|>")`. Its labels are -100 in any case.

    Raises:
        ShardError: An output is unfinished, or a file is missing or cut short.
        FingerprintError: The folders are of different vocabularies, or not of the one given.
        SpecError: A setting that cannot be.
    """

    def __init__(
        self,
        folders: Folders,
        sequence_length: int = 4096,
        *,
        packing: Packing = "concat_split",
        batch_size: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        shuffle_tokens: int | None = None,
        epochs: int | None = 1,
        rank: int = 0,
        world_size: int = 1,
        vocabulary: Vocabulary | str | None = None,
        loss_weights: Mapping[str, float] | None = None,
        pad_id: int = 0,
    ) -> None:
        if not 0 <= rank < world_size:
            raise SpecError(f"rank={rank} of world_size={world_size}: give a rank from 0 to world_size - 1")
        if batch_size is not None and (batch_size < 1 or batch_size * sequence_length >= 2**31):
            raise SpecError(
                f"batch_size={batch_size}: give at least 1 row, and fewer than 2^31 tokens a batch, or None"
            )
        self._corpus = Corpus(folders, vocabulary)
        # Read as they lie, documents need no cutting.
        self._stretches = Stretches(self._corpus, shuffle_tokens) if shuffle and shuffle_tokens is not None else None
        units = self._corpus if self._stretches is None else self._stretches
        self._packer = Packer(units, DocumentOrder(len(units), seed, shuffle), sequence_length, packing)
        self._assemble = Assembler(self._corpus, pad_id, loss_weights or {})
        self._row_tokens, self._batch_size, self._epochs = sequence_length, batch_size, epochs
        self._rank, self._world_size = rank, world_size
        self._settings: dict[str, Json] = {
            "packing": packing,
            "sequence_length": sequence_length,
            "seed": seed,
            "shuffle": shuffle,
            "shuffle_tokens": shuffle_tokens,
        }
        # Where an iteration starts, and where the latest one stands.
        self._start = self._reached = _Stand(START, 0, None)
        # Shared with worker processes: once they read, this process no longer knows how far the training is.
        self._read_elsewhere = torch.zeros(1, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        if worker is not None:
            self._read_elsewhere.fill_(1)
        turns = 1 if worker is None else worker.num_workers
        wait = 0 if worker is None else worker.id
        if self._start.turn is not None:
            wait, turns_then = self._start.turn
            if worker is None or turns != turns_then:
                raise LoaderError(
                    f"the state is that of one of {turns_then} DataLoader workers, here are "
                    f"{0 if worker is None else turns}: resume with as many, or from what state_dict(batch) returned"
                )
        for number, (rows, place, num_rows) in enumerate(self._batches()):
            if number % turns == wait:
                batch = self._batch(rows)
                batch["place"] = torch.tensor([*place, num_rows])
                self._reached = _Stand(place, num_rows, None if worker is None else (turns - 1, turns))
                yield batch

    def state_dict(self, batch: Mapping[str, Any] | None = None) -> dict[str, Json]:
        """Where the stream stands, as JSON values of constant size.

        Args:
            batch: The last batch used; None for the last one that this process's iterator gave.
        Raises:
            LoaderError: DataLoader workers read the data, so only a batch can tell.
        """
        stand = self._reached
        if batch is not None:
            epoch, position, carry, num_rows = (int(value) for value in batch["place"])
            stand = _Stand(Place(epoch, position, carry), num_rows, None)
        elif int(self._read_elsewhere) and get_worker_info() is None:
            raise LoaderError(
                "DataLoader workers read ahead of the training, so this process does not know which batch was "
                "the last: call state_dict(batch) with the last batch you used"
            )
        return {
            "version": STATE_VERSION,
            "data": self._corpus.fingerprint,
            "settings": dict(self._settings),
            "epoch": stand.place.epoch,
            "position": stand.place.position,
            "carry": stand.place.carry,
            "rows": stand.num_rows,
            "turn": None if stand.turn is None else list(stand.turn),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Start the next iterations at a state; takes the same time wherever it stands.

        Ranks, batch size, workers, epochs and loss weights may differ from those of the run that saved it.

        Raises:
            LoaderError: The state is of other data, other settings or another version; names both sides.
        """
        if state.get("version") != STATE_VERSION:
            raise LoaderError(f"state of version {state.get('version')!r}, this multitok reads {STATE_VERSION}")
        for what, found, own in (
            ("data", state["data"], self._corpus.fingerprint),
            ("settings", dict(state["settings"]), self._settings),
        ):
            if found != own:
                raise LoaderError(
                    f"the state is of {what} {found}, this dataset is of {own}: going on would repeat some documents "
                    "and skip others; open what the state was saved with, or start without it"
                )
        place = Place(int(state["epoch"]), int(state["position"]), int(state["carry"]))
        turn = None if state["turn"] is None else (int(state["turn"][0]), int(state["turn"][1]))
        self._start = self._reached = _Stand(place, int(state["rows"]), turn)
        self._read_elsewhere.fill_(0)

    def _batches(self) -> Iterator[tuple[list[tuple[RowPlan, int]], Place, int]]:
        """This rank's rows of each global batch, the place after it, and the rows up to there."""
        per_rank = self._batch_size or 1
        size = per_rank * self._world_size
        place, num_rows, _ = self._start
        rows: list[tuple[RowPlan, int]] = []
        while self._epochs is None or place.epoch < self._epochs:
            plan = self._packer.plan(place)
            for row, after in enumerate(plan.after):
                rows.append((plan, row))
                if len(rows) == size:
                    num_rows += size
                    yield rows[self._rank * per_rank : (self._rank + 1) * per_rank], after, num_rows
                    rows = []
            place = plan.after[-1]
        if rows:
            yield rows[self._rank * per_rank : (self._rank + 1) * per_rank], place, num_rows + len(rows)

    def _batch(self, rows: list[tuple[RowPlan, int]]) -> dict[str, Any]:
        document: list[NDArray[np.int64]] = []
        offset: list[NDArray[np.int64]] = []
        length: list[NDArray[np.int64]] = []
        for plan, row in rows:
            pieces = slice(int(plan.first_piece[row]), int(plan.first_piece[row + 1]))
            owners, starts = plan.document[pieces], plan.offset[pieces]
            if self._stretches is not None:
                owners, first_tokens = self._stretches.locate(owners)
                starts = starts + first_tokens
            document.append(owners)
            offset.append(starts)
            length.append(plan.length[pieces])
            missing = self._row_tokens - int(plan.length[pieces].sum())
            if missing:
                _append_padding(document, offset, length, missing)
        for _ in range((self._batch_size or 1) - len(rows)):
            _append_padding(document, offset, length, self._row_tokens)
        pieces_of_batch = Pieces(np.concatenate(document), np.concatenate(offset), np.concatenate(length))
        fields = _to_torch(self._assemble(pieces_of_batch))
        if self._batch_size is None:
            return fields
        return {
            name: value.view(self._batch_size, self._row_tokens) if name not in ("cu_seqlens", "max_seqlen") else value
            for name, value in fields.items()
        }


def _append_padding(
    document: list[NDArray[np.int64]], offset: list[NDArray[np.int64]], length: list[NDArray[np.int64]], count: int
) -> None:
    document.append(np.array([NO_DOCUMENT]))
    offset.append(np.zeros(1, np.int64))
    length.append(np.array([count]))


def _to_torch(fields: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    batch: dict[str, Any] = {name: torch.from_numpy(array) for name, array in fields.items()}
    batch["max_seqlen"] = int(np.diff(fields["cu_seqlens"]).max())
    return batch
