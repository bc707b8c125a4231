"""Templates as JSON, checked against a vocabulary before anything is encoded."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from multitok.checkpoint import sha256_json
from multitok.errors import MultitokError, PatternError, SpecError, VocabularyError
from multitok.interleave import Interleaver, SegmentTemplate, Template
from multitok.interleave import presets as templates
from multitok.vocabulary import Vocabulary
from tests.interleave.documents import SEPARATED, SIZED, VOCABULARY
from tests.vocabulary.toy import entry


@pytest.mark.parametrize("template", [SIZED, SEPARATED, templates.emu3(), templates.chameleon(), templates.anygpt()])
def test_json_round_trip(template: Template) -> None:
    assert Template.from_json(json.loads(json.dumps(template.to_json()))) == template


def test_the_default_template_is_pinned() -> None:
    """Another default would silently write other token streams: give a changed one a name of its own."""
    assert sha256_json(Template().to_json()) == "8a93a5bb9d6b4043ee0e1bf63066a445ea2ca952c1ddfb72a814ed915882df3e"


def with_segment(name: str, **fields: Any) -> Template:
    return Template(segments={**SIZED.segments, name: SegmentTemplate(**fields)})


def test_a_name_comes_before_its_modality() -> None:
    template = with_segment("protein", pattern="flat", begin="<|text|>")
    interleaver = Interleaver(VOCABULARY, template)
    assert interleaver.template.segments["protein"].pattern == "raster"
    assert interleaver.count([]) == 2


def test_missing_tokens_are_all_named() -> None:
    bare = Vocabulary.build([entry("text", (3,))], special_tokens=["<|bos|>", "<|pad|>"])
    with pytest.raises(
        VocabularyError, match=re.escape("tokens that the vocabulary lacks: <|eos|>; add them to special")
    ):
        Interleaver(bare)
    template = Template(
        segments={"text": SegmentTemplate(begin="<|t|>", pattern="delay", size="grid")},
        begin=None,
        end=None,
    )
    missing = "<|empty|>, <|x|>, <|0|>, <|1|>, <|2|>, <|3|>, <|4|>, <|5|>, <|6|>, <|7|>, <|8|>, <|9|>, <|t|>"
    with pytest.raises(VocabularyError, match=re.escape(f"lacks: {missing};")):
        Interleaver(bare, template)


def test_only_tokens_in_use_are_needed() -> None:
    bare = Vocabulary.build([entry("text", (3,))], special_tokens=[])
    template = Template(begin=None, end=None, pad=None)
    assert Interleaver(bare, template).count([]) == 0


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        (
            Template(segments={}),
            VocabularyError,
            "no segments['text'] nor segments['text'], but the vocabulary has the",
        ),
        (with_segment("audio", pattern="row"), PatternError, "raster+row for 'audio' over the axes ('t',)"),
        (with_segment("audio", pattern="delay:0,1"), PatternError, "2 delays for 3 codebooks"),
        (with_segment("image", grid=(3,)), PatternError, "grid (3,) for 'image': give one size for each of the axes"),
        (
            with_segment("dna", begin="<|sequence|>", end="<|eos|>"),
            PatternError,
            "segments of 'dna' and 'protein' both begin with special token '<|sequence|>' but differ in end",
        ),
        (with_segment("text", begin="text:0:300"), MultitokError, "'text:0:300': the codebooks of 'text' have (300,)"),
    ],
)
def test_templates_that_do_not_fit_the_vocabulary(template: Template, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        Interleaver(VOCABULARY, template)


def test_an_extent_does_not_tell_the_grid_where_the_content_decides() -> None:
    v = Vocabulary.build([entry("text", (3,), stride=0)])
    with pytest.raises(PatternError, match="size='extent' for 'text': its grid depends on the content"):
        Interleaver(v, with_segment("text", begin="<|text|>", size="extent"))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"pattern": "zigzag"}, PatternError, "'zigzag' is none of raster"),
        ({"size": "pixels", "begin": "<a>"}, SpecError, "size='pixels' after begin='<a>': give 'grid' or 'extent'"),
        ({"size": "grid"}, SpecError, "size='grid' after begin=None: give 'grid' or 'extent' after a begin token"),
        ({"size_end": "<a>"}, SpecError, "size_end='<a>' without a size"),
    ],
)
def test_segment_templates_that_cannot_be(fields: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        SegmentTemplate(**fields)


def test_templates_that_cannot_be() -> None:
    with pytest.raises(SpecError, match="give ten different tokens, for 0 to 9"):
        Template(digits=("<|0|>",) * 10)
    with pytest.raises(SpecError, match=re.escape("segments['image'] ends its size with '<|x|>', a part of sizes")):
        with_segment("image", begin="<|image|>", size="grid", size_end="<|x|>")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "a template of format_version 2, this multitok reads 1"),
        ({"colour": "red"}, "not a template: .*colour"),
        ({"segments": {"text": {"patern": "raster"}}}, "not a template: .*patern"),
        ({"segments": {"text": {"pattern": "zigzag"}}}, "not a template: pattern 'zigzag'"),
        ({"segments": None}, "not a template: .*items"),
    ],
)
def test_altered_json_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Template.from_json({**SIZED.to_json(), **change})
    with pytest.raises(SpecError, match="format_version None"):
        Template.from_json([])  # type: ignore[arg-type]
