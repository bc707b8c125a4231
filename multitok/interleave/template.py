"""Templates: which structure tokens stand around a segment's codes, and in which order its codes are written.

    <|bos|> text ... <|image|> <|1|><|6|><|x|><|1|><|6|> codes ... <|/image|> text ... <|eos|>
            no marks  begin     size of the grid, 16 x 16           end

A size is written with digit tokens, one number per grid axis, first axis first; no text tokenizer is involved.
A template names tokens; `Marks` holds their IDs in one vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from multitok.errors import MultitokError, PatternError, SpecError, VocabularyError
from multitok.interleave.patterns import Pattern
from multitok.protocol import Json, Modality, TokenizerSpec
from multitok.vocabulary import Vocabulary

FORMAT_VERSION = 1
SIZES = ("grid", "extent")


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTemplate:
    """How segments of one tokenizer or modality are written.

    Args:
        begin: Token before the segment; None for none.
        end: Token after it; None for none.
        pattern: Flatten pattern, see `multitok.interleave.patterns`.
        size: What digits after `begin` say: "grid" the grid's size; "extent" the raw size, from which the grid
            follows where a tokenizer covers its input in whole strides; None nothing.
        size_end: Token between the size and the codes; None for none.
        grid: The grid that all these segments have, where a model fixes it; None where it differs.

    Raises:
        PatternError: `pattern` cannot be parsed.
        SpecError: An unknown `size`, or a size without a `begin` to announce it.
    """

    begin: str | None = None
    end: str | None = None
    pattern: str = "raster"
    size: str | None = None
    size_end: str | None = None
    grid: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "pattern", str(Pattern.parse(self.pattern)))
        if self.grid is not None:
            object.__setattr__(self, "grid", tuple(int(n) for n in self.grid))
        if self.size is not None and (self.size not in SIZES or self.begin is None):
            raise SpecError(
                f"size={self.size!r} after begin={self.begin!r}: give 'grid' or 'extent' after a begin token"
            )
        if self.size_end is not None and self.size is None:
            raise SpecError(
                f"size_end={self.size_end!r} without a size: give size='grid' or 'extent', or leave both out"
            )


def _default_segments() -> dict[str, SegmentTemplate]:
    def marked(modality: Modality, size: str | None = None) -> SegmentTemplate:
        return SegmentTemplate(begin=f"<|{modality}|>", end=f"<|/{modality}|>", size=size)

    return {
        "text": SegmentTemplate(),
        "image": marked(Modality.IMAGE, "grid"),
        "video": marked(Modality.VIDEO, "grid"),
        "volume": marked(Modality.VOLUME, "grid"),
        "audio": marked(Modality.AUDIO),
        "series": marked(Modality.SERIES, "grid"),
        "sequence": marked(Modality.SEQUENCE),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """How documents are written: structure tokens by name, and a `SegmentTemplate` per tokenizer or modality.

    A token is named as `Vocabulary.id_of` takes it: a special token, or "name:codebook:code" for models that
    spell sizes with text tokens.

    Args:
        segments: By tokenizer name or, for the others, by modality ("image").
        begin: Token before the document; None for none.
        end: Token after it; None for none.
        pad: Token that may fill a stream after the end of its document; None for none.
        row: Token that ends a row.
        frame: Token that ends a frame.
        empty: Token that fills delayed streams.
        digits: Tokens for 0 to 9, for sizes.
        times: Token between the numbers of a size.

    Raises:
        SpecError: Not ten digits, or a size_end that could be part of a size.
    """

    segments: Mapping[str, SegmentTemplate] = field(default_factory=_default_segments)
    begin: str | None = "<|bos|>"
    end: str | None = "<|eos|>"
    pad: str | None = "<|pad|>"
    row: str = "<|row|>"
    frame: str = "<|frame|>"
    empty: str = "<|empty|>"
    digits: tuple[str, ...] = tuple(f"<|{digit}|>" for digit in range(10))
    times: str = "<|x|>"

    def __post_init__(self) -> None:
        object.__setattr__(self, "segments", dict(self.segments))
        object.__setattr__(self, "digits", tuple(self.digits))
        if len(set(self.digits)) != 10:
            raise SpecError(f"digits={self.digits}: give ten different tokens, for 0 to 9")
        for name, segment in self.segments.items():
            if segment.size_end is not None and segment.size_end in (*self.digits, self.times):
                raise SpecError(
                    f"segments[{name!r}] ends its size with {segment.size_end!r}, a part of sizes: give another"
                )

    def to_json(self) -> dict[str, Json]:
        """The template as JSON values; `from_json` inverts it."""
        data: dict[str, Json] = {"format_version": FORMAT_VERSION}
        for each in fields(self):
            value = getattr(self, each.name)
            data[each.name] = list(value) if isinstance(value, tuple) else value
        segments: dict[str, Json] = {}
        for name, segment in self.segments.items():
            values = asdict(segment)
            segments[name] = {**values, "grid": None if segment.grid is None else list(segment.grid)}
        data["segments"] = segments
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Template:
        """Rebuild a template from what `to_json` returned.

        Raises:
            SpecError: Another format version, or a field is missing, unknown or cannot be.
        """
        version = data.get("format_version") if isinstance(data, Mapping) else None
        if version != FORMAT_VERSION:
            raise SpecError(f"a template of format_version {version!r}, this multitok reads {FORMAT_VERSION}")
        values = {key: value for key, value in data.items() if key != "format_version"}
        try:
            segments = {str(name): SegmentTemplate(**segment) for name, segment in values.pop("segments").items()}
            return cls(segments=segments, **values)
        except (KeyError, TypeError, AttributeError, MultitokError) as error:
            raise SpecError(f"not a template: {error}") from error


@dataclass(frozen=True, slots=True)
class SegmentMarks:
    """One tokenizer's `SegmentTemplate` with IDs in place of tokens, and its pattern parsed."""

    name: str
    spec: TokenizerSpec
    pattern: Pattern
    begin: int | None
    end: int | None
    size: str | None
    size_end: int | None
    grid: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Marks:
    """A template with the IDs it has in one vocabulary; -1 for tokens that no segment of it needs."""

    segments: dict[str, SegmentMarks]
    begin: int | None
    end: int | None
    pad: int | None
    row: int
    frame: int
    empty: int
    digits: tuple[int, ...]
    times: int

    @classmethod
    def of(cls, template: Template, vocabulary: Vocabulary) -> Marks:
        """Look up a template's tokens in a vocabulary, and check that the two fit.

        Raises:
            VocabularyError: Tokens that the vocabulary lacks (all are named), or a tokenizer without a template.
            PatternError: A pattern that does not fit its tokenizer, or templates that cannot be told apart.
        """
        chosen = {name: _template_of(template, entry.spec) for name, entry in vocabulary.entries.items()}
        patterns = {
            name: Pattern.parse(segment.pattern).resolved(vocabulary.spec(name).num_codebooks)
            for name, segment in chosen.items()
        }
        sized = any(segment.size for segment in chosen.values())
        wanted = {
            "begin": template.begin,
            "end": template.end,
            "pad": template.pad,
            "row": template.row if any(p.row for p in patterns.values()) else None,
            "frame": template.frame if any(p.frame for p in patterns.values()) else None,
            "empty": template.empty if any(p.codebooks == "delay" for p in patterns.values()) else None,
            "times": template.times if sized else None,
        }
        tokens = [token for token in (*wanted.values(), *(template.digits if sized else ())) if token is not None]
        for segment in chosen.values():
            tokens += [t for t in (segment.begin, segment.end, segment.size_end) if t is not None]
        ids = _ids_of(tokens, vocabulary)

        def find(token: str | None) -> int | None:
            return None if token is None else ids[token]

        segments = {
            name: SegmentMarks(
                name,
                vocabulary.spec(name),
                patterns[name],
                find(segment.begin),
                find(segment.end),
                segment.size,
                find(segment.size_end),
                segment.grid,
            )
            for name, segment in chosen.items()
        }
        for marks in segments.values():
            _check_pattern(marks)
        _check_shared_begins(segments, vocabulary)
        filler = {
            key: -1 if wanted[key] is None else ids[str(wanted[key])] for key in ("row", "frame", "empty", "times")
        }
        return cls(
            segments,
            find(template.begin),
            find(template.end),
            find(template.pad),
            filler["row"],
            filler["frame"],
            filler["empty"],
            tuple(ids[token] for token in template.digits) if sized else (),
            filler["times"],
        )


def _template_of(template: Template, spec: TokenizerSpec) -> SegmentTemplate:
    for key in (spec.name, spec.modality.value):
        if key in template.segments:
            return template.segments[key]
    raise VocabularyError(
        f"the template has no segments[{spec.name!r}] nor segments[{spec.modality.value!r}], but the vocabulary has "
        f"the tokenizer {spec.name!r}: add one of the two"
    )


def _ids_of(tokens: list[str], vocabulary: Vocabulary) -> dict[str, int]:
    ids: dict[str, int] = {}
    missing: list[str] = []
    for token in dict.fromkeys(tokens):
        try:
            ids[token] = vocabulary.id_of(token)
        except VocabularyError:
            missing.append(token)
    if missing:
        raise VocabularyError(
            f"the template uses tokens that the vocabulary lacks: {', '.join(missing)}; add them to special_tokens "
            "when building it, or give a template without them"
        )
    return ids


def _check_pattern(marks: SegmentMarks) -> None:
    axes = marks.spec.grid_axes
    if (marks.pattern.row or marks.pattern.frame) and len(axes) < 2:
        raise PatternError(
            f"pattern {marks.pattern} for {marks.name!r} over the axes {axes}: row and frame need two axes"
        )
    if marks.grid is not None and len(marks.grid) != len(axes):
        raise PatternError(f"grid {marks.grid} for {marks.name!r}: give one size for each of the axes {axes}")
    if marks.size == "extent" and 0 in marks.spec.stride:
        raise PatternError(f"size='extent' for {marks.name!r}: its grid depends on the content; use size='grid'")


def _check_shared_begins(segments: Mapping[str, SegmentMarks], vocabulary: Vocabulary) -> None:
    # A reader learns from the codes which tokenizer it is; what comes before them must not depend on that.
    first: dict[int, SegmentMarks] = {}
    for marks in segments.values():
        if marks.begin is None:
            continue
        other = first.setdefault(marks.begin, marks)
        if (other.end, other.size, other.size_end) != (marks.end, marks.size, marks.size_end):
            raise PatternError(
                f"segments of {other.name!r} and {marks.name!r} both begin with {vocabulary.describe(marks.begin)} but "
                "differ in end, size or size_end: give them different begin tokens"
            )
