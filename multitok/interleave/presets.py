"""How published models write documents: templates for the vocabularies in `multitok.vocabulary.presets`.

The arguments are the tokenizers' names in the vocabulary. What surrounds a document in a chat, such as a system
prompt or the names of the speakers, is text and so not part of a template.
"""

from __future__ import annotations

from multitok.interleave.template import SegmentTemplate, Template


def emu3(*, text: str = "text", image: str = "image") -> Template:
    """Emu3's: `<|image start|> H*W <|image token|> rows <|image end|>`.

    H and W, the size of the grid of codes, are written as text: in Qwen's BPE the digits are single tokens, codes
    15 to 24, and "*" is code 9. Every row ends with `<|extra_200|>`, the image's one frame with `<|extra_201|>`.

    Source:
        processing_emu3.py of the released code.
    """
    return Template(
        segments={
            text: SegmentTemplate(),
            image: SegmentTemplate(
                begin="<|image start|>",
                end="<|image end|>",
                pattern="raster+row+frame",
                size="grid",
                size_end="<|image token|>",
            ),
        },
        begin="<|extra_203|>",
        end="<|extra_204|>",
        pad="<|endoftext|>",
        row="<|extra_200|>",
        frame="<|extra_201|>",
        digits=tuple(f"{text}:0:{15 + digit}" for digit in range(10)),
        times=f"{text}:0:9",
    )


def chameleon(*, text: str = "text", image: str = "image") -> Template:
    """Chameleon's: `<racm3:break>`, the 32 x 32 codes of a 512 x 512 image row by row, `<eoss>`.

    Source:
        chameleon/inference of the released code.
    """
    return Template(
        segments={
            text: SegmentTemplate(),
            image: SegmentTemplate(begin="<racm3:break>", end="<eoss>", grid=(32, 32)),
        },
        begin="<s>",
        end="</s>",
        pad="<pad>",
    )


def anygpt(*, text: str = "text", image: str = "image", speech: str = "speech", music: str = "music") -> Template:
    """AnyGPT's: each modality between its own two tokens; a frame's four music codes next to each other.

    A document begins with LLaMA's `<s>` and ends with its `</s>`, which are text codes 1 and 2.

    Source:
        anything2token.py of the released code.
    """
    return Template(
        segments={
            text: SegmentTemplate(),
            image: SegmentTemplate(begin="<soim>", end="<eoim>"),
            speech: SegmentTemplate(begin="<sosp>", end="<eosp>"),
            music: SegmentTemplate(begin="<somu>", end="<eomu>"),
        },
        begin=f"{text}:0:1",
        end=f"{text}:0:2",
        pad=None,
    )
