"""From a plan of rows to arrays: what a training step reads.

Shape letters: B rows, L tokens per row, P pieces (padding at a row's end counts as a piece of its own), N = B L.

    row          |  document 7, cut  | document 3 |pad|
    input_ids      a  b  c  d          p  q  r      0
    labels         b  c  d  e          q  r -100  -100      e is the next row's first token
    position_ids   0  1  2  3          0  1  2      0
    document_ids   7  7  7  7          3  3  3     -1
    cu_seqlens   [ 0,                  4,         7,  8 ]

Labels are shifted already: `labels[i]` is the token after `input_ids[i]` in the same document, also where a row cuts
the document, so every token but a document's first is learned exactly once an epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import SpecError
from multitok.loader.corpus import Corpus
from multitok.protocol import Modality
from multitok.shards import SpanTable

IGNORE_LABEL = -100
NO_DOCUMENT = -1
STRUCTURE = "structure"
MODALITY_IDS: dict[str, int] = {STRUCTURE: 0} | {modality.value: k for k, modality in enumerate(Modality, start=1)}
_PADDING = len(MODALITY_IDS)  # inside this module: what has no weight in the loss


@dataclass(frozen=True)
class Pieces:
    """Pieces of documents that lie end to end and fill B rows exactly.

    Args:
        document: [P] number of the document; -1 for padding.
        offset: [P] first token of the piece in its document.
        length: [P] tokens.
    """

    document: NDArray[np.int64]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]


class Assembler:
    """Fills arrays with the tokens of pieces.

    Args:
        corpus: Where the tokens are.
        pad_id: ID for padding.
        loss_weights: Weight of a token in the loss, by its modality or "structure"; 1 where absent.

    Raises:
        SpecError: An unknown modality, or a weight below 0.
    """

    def __init__(self, corpus: Corpus, pad_id: int, loss_weights: Mapping[str, float]) -> None:
        self._corpus, self._pad_id = corpus, pad_id
        unknown = [word for word in loss_weights if str(word) not in MODALITY_IDS]
        if unknown or not all(weight >= 0 for weight in loss_weights.values()):
            raise SpecError(
                f"loss_weights={dict(loss_weights)}: give numbers >= 0 for any of {', '.join(MODALITY_IDS)}"
            )
        self._weights = np.ones(len(MODALITY_IDS) + 1, np.float32)
        for word, weight in loss_weights.items():
            self._weights[MODALITY_IDS[str(word)]] = weight
        self._weights[_PADDING] = 0

    def __call__(self, pieces: Pieces) -> dict[str, NDArray[Any]]:
        """All fields, flat: [N] each, and cu_seqlens [P + 1]."""
        ends = np.cumsum(pieces.length)
        total = int(ends[-1])
        ids, labels, positions = (np.empty(total, np.int64) for _ in range(3))
        count = np.arange(int(pieces.length.max()))
        runs = _Runs()
        last_label: list[int] = []  # modality of each piece's last label, which is the token after the piece
        start = 0
        for document, offset, length in zip(
            pieces.document.tolist(), pieces.offset.tolist(), pieces.length.tolist(), strict=True
        ):
            last = start + length - 1
            positions[start : last + 1] = count[:length]
            if document == NO_DOCUMENT:
                ids[start : last + 1] = self._pad_id
                labels[start : last + 1] = IGNORE_LABEL
                runs.add(_PADDING, length)
                last_label.append(_PADDING)
            else:
                tokens, table, first, end = self._corpus.read(document)
                after = offset + length
                ids[start : last + 1] = tokens[offset:after]
                labels[start:last] = ids[start + 1 : last + 1]
                runs.add_spans(table, first, end, offset, after)
                if after < len(tokens):
                    labels[last] = tokens[after]
                    label = _Runs()
                    label.add_spans(table, first, end, after, after + 1)
                    last_label.append(label.values[0])
                else:
                    labels[last] = IGNORE_LABEL
                    last_label.append(_PADDING)
            start = last + 1
        values, counts = np.array(runs.values), np.array(runs.counts)
        modalities = np.repeat(np.where(values == _PADDING, 0, values), counts)
        # A label is the next token: the same runs, one token earlier. Only a piece's last label may be of another.
        counts[0] -= 1
        counts[-1] += 1
        weights = np.repeat(self._weights[values], counts)
        weights[ends - 1] = self._weights[last_label]
        return {
            "input_ids": ids,
            "labels": labels,
            "position_ids": positions,
            "document_ids": np.repeat(pieces.document, pieces.length),
            "modality_ids": modalities,
            "loss_weights": weights,
            "cu_seqlens": np.concatenate([[0], ends]).astype(np.int32),
        }


class _Runs:
    """Modality IDs, run-length encoded."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self.counts: list[int] = []

    def add(self, value: int, count: int) -> None:
        """Append `count` times `value`."""
        self.values.append(value)
        self.counts.append(count)

    def add_spans(self, table: SpanTable, first: int, last: int, start: int, stop: int) -> None:
        """Append the modality of the tokens `start` to `stop` of a document with the spans `first` to `last`."""
        if start:  # skip what lies before a later piece of the document
            first += max(0, int(table.start[first:last].searchsorted(start, side="right")) - 1)
        if last - first > 16:  # and behind an earlier one
            last = first + int(table.start[first:last].searchsorted(stop))
        begins, lengths = table.start[first:last].tolist(), table.length[first:last].tolist()
        for begin, length, modality in zip(begins, lengths, table.modality[first:last].tolist(), strict=True):
            if begin >= stop:
                break
            end = min(begin + length, stop)
            if end > start:
                if begin > start:
                    self.add(0, begin - start)
                    start = begin
                self.add(modality + 1, end - start)
                start = end
        if stop > start:
            self.add(0, stop - start)
