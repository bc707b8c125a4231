"""Which tokenizer takes which file, key or column.

A key is a modality's word ("image") or a tokenizer's name in the vocabulary ("dna"). Where a modality has
several tokenizers, the one named like the modality takes it ("text" before "bytes"), "dna" takes sequences and
"protein" takes .faa files; else `use` has to say: {"series": "fine"}, or by file ending {".tsv": "coarse"}.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from multitok.errors import InputError, JobError
from multitok.frontend.media import modalities_of
from multitok.protocol import Modality

# Modalities whose raw item is a string, so that a document can hold it in place of a path.
INLINE = frozenset({Modality.TEXT, Modality.SEQUENCE})
_PLAIN = frozenset({Modality.TEXT, Modality.SERIES, Modality.SEQUENCE})

# Tokenizers of these names take these files without being told.
CONVENTIONS = {"sequence": "dna", ".faa": "protein"}


class Routing:
    """An immutable choice of tokenizers.

    Args:
        modalities: Tokenizer name -> modality, for every tokenizer of the vocabulary.
        use: Modality word or file ending (".faa") -> tokenizer name.

    Raises:
        JobError: `use` names something that is not there, or a tokenizer of another modality.
    """

    def __init__(self, modalities: Mapping[str, Modality], use: Mapping[str, str]) -> None:
        self.modalities = dict(modalities)
        told = {key: name for key, name in CONVENTIONS.items() if modalities.get(name) is Modality.SEQUENCE}
        use = told | dict(use)
        words = [modality.value for modality in Modality]
        for key, name in use.items():
            if name not in self.modalities:
                raise JobError(f"use={{{key!r}: {name!r}}}: the vocabulary's tokenizers are {', '.join(modalities)}")
            possible = (Modality(key),) if key in words else modalities_of("x" + key) if key.startswith(".") else ()
            if not possible:
                raise JobError(f"use={{{key!r}: ...}}: give a modality ({', '.join(words)}) or a file ending ('.faa')")
            if self.modalities[name] not in possible:
                raise JobError(
                    f"use={{{key!r}: {name!r}}}: {key} holds {' or '.join(possible)}, "
                    f"but {name!r} takes {self.modalities[name]}"
                )
        self.use = dict(sorted(use.items()))

    def is_key(self, key: str) -> bool:
        """Whether `key` names a modality or a tokenizer, so that a document means a segment by it."""
        return key in self.modalities or key in list(Modality)

    def of_key(self, key: str) -> str:
        """Tokenizer for a key of a document or the name of a column.

        Raises:
            InputError: No tokenizer of the vocabulary takes it.
            JobError: Several do, and none was chosen.
        """
        return key if key in self.modalities else self._of_modality(Modality(key))

    def of_content(self, name: str, modality: Modality) -> str:
        """Tokenizer for a file that was read and found to hold `modality`.

        Raises:
            InputError: No tokenizer of the vocabulary takes it.
            JobError: Several do, and none was chosen.
        """
        chosen = self.use.get(_ending(name))
        return chosen if chosen and self.modalities[chosen] is modality else self._of_modality(modality)

    def takes_file(self, name: str) -> bool:
        """Whether a file's ending is known, and its modality has a tokenizer or shows only in the content.

        Raises:
            JobError: Several tokenizers could take it, and none was chosen.
        """
        return any(self._has(name, modality) for modality in _possible(name))

    def why_skipped(self, name: str) -> str:
        """The words under which a report counts a file that is not taken."""
        ending = _ending(name) or "no ending"
        possible = _possible(name)
        return f"{ending} (no {' or '.join(possible)} tokenizer)" if possible else f"{ending} (unknown)"

    def rank(self, name: str) -> int:
        """Rank of a file's modality, by which the files of one document are put in order: text first."""
        return list(Modality).index(modalities_of(name)[0])

    def _has(self, name: str, modality: Modality) -> bool:
        try:
            return bool(self.of_content(name, modality))
        except InputError:
            return False

    def _of_modality(self, modality: Modality) -> str:
        if modality.value in self.use:
            return self.use[modality.value]
        names = [name for name, takes in self.modalities.items() if takes is modality]
        if not names:
            raise InputError(f"the vocabulary has no tokenizer for {modality}")
        if len(names) > 1 and modality.value not in names:
            raise JobError(
                f"{len(names)} tokenizers of the vocabulary take {modality} ({', '.join(names)}): "
                f"say which, as in use={{'{modality}': {names[0]!r}}}, or by file ending"
            )
        return modality.value if modality.value in names else names[0]


def _possible(name: str) -> tuple[Modality, ...]:
    """What reading the file may find: text, tables and sequences look alike, so that their names decide."""
    possible = modalities_of(name)
    return possible[:1] if possible and possible[0] in _PLAIN else possible


def _ending(name: str) -> str:
    return PurePosixPath(name).suffix.lower()
