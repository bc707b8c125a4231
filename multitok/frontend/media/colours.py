"""Decoded video frames -> upright RGB: which matrix, which range, which way up.

| what               | rule                                                                                       |
|--------------------|--------------------------------------------------------------------------------------------|
| matrix             | the one the stream names (BT.601, BT.709, FCC, SMPTE 240M, BT.2020); unnamed: BT.709 from  |
|                    | 720 rows on, BT.601 below, as players do                                                   |
| range              | the one the stream names; unnamed: limited for YUV, full for grey, RGB and the yuvj formats |
| depth              | 9 to 16 bits are scaled to 8 and rounded                                                   |
| chroma             | interpolated bicubically, with libswscale's exact rounding                                 |
| alpha              | composited over white                                                                      |
| rotation, mirror   | applied where the display matrix is one of the eight upright ones; others are left         |
| HDR transfer, gamut| left as stored: no tone mapping                                                            |
| pixel aspect       | left as stored: no stretching                                                              |
| interlacing        | left as stored                                                                             |

Shape letters: H rows, W columns.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import MediaError

# Values of AVColorSpace, and what the scale filter calls them.
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
_RGB, _UNNAMED = 0, 2
_LIMITED, _FULL = 1, 2
_HD_ROWS = 720
# Without them libswscale rounds as the processor at hand does it fastest.
_EXACT = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"


class RgbConverter:
    """Turns the frames of one stream into RGB; keeps the filter graph as long as the frames' format stays.

    Args:
        name: The file's name, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._key: tuple[Any, ...] = ()
        self._graph: Any = None
        self._has_alpha = False

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """One frame, not turned yet.

        Args:
            frame: A PyAV video frame.

        Returns:
            uint8 [H, W, 3].

        Raises:
            MediaError: Its colour matrix is one that is not read.
        """
        key = (frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))
        if key != self._key:
            self._graph, self._has_alpha = self._build(frame), _has_alpha(frame.format)
            self._key = key
        self._graph.push(frame)
        pixels: NDArray[np.uint8] = self._graph.pull().to_ndarray()
        return over_white(pixels) if self._has_alpha else pixels

    def _build(self, frame: Any) -> Any:
        import av.filter

        graph = av.filter.Graph()
        entry = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base or Fraction(1)
        )
        scale = graph.add("scale", f"flags={_EXACT}:{self._colours(frame)}")
        wanted = graph.add("format", "pix_fmts=" + ("rgba" if _has_alpha(frame.format) else "rgb24"))
        end = graph.add("buffersink")
        entry.link_to(scale)
        scale.link_to(wanted)
        wanted.link_to(end)
        graph.configure()
        return graph

    def _colours(self, frame: Any) -> str:
        named = int(frame.colorspace)
        layout = frame.format
        if layout.is_rgb or layout.has_palette:
            return "out_range=pc"
        is_grey = len(layout.components) <= 2
        if named in (_RGB, _UNNAMED) or is_grey:
            named = 1 if frame.height >= _HD_ROWS else 5
        if named not in _MATRICES:
            raise MediaError(
                f"{self._name}: colours are coded by matrix {named} of ITU-T H.273, readable are BT.601, BT.709, FCC, "
                "SMPTE 240M and BT.2020; convert the file"
            )
        by_range = {_LIMITED: "tv", _FULL: "pc"}
        unnamed = "pc" if is_grey or layout.name.startswith("yuvj") else "tv"
        source_range = by_range.get(int(frame.color_range), unnamed)
        return f"in_color_matrix={_MATRICES[named]}:in_range={source_range}:out_range=pc"


def over_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite RGBA pixels over white, rounded to the nearest.

    Args:
        rgba: [H, W, 4], alpha not multiplied in.

    Returns:
        uint8 [H, W, 3].
    """
    alpha = rgba[..., 3:].astype(np.uint32)
    mixed = rgba[..., :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def upright(pixels: NDArray[np.uint8], matrix: tuple[int, int, int, int] | None) -> NDArray[np.uint8]:
    """Turn and mirror a frame as its display matrix says.

    Args:
        pixels: [H, W, 3].
        matrix: a, b, c, d of the display matrix: (x, y) is shown at (a x + c y, b x + d y). None: as stored.

    Returns:
        uint8 [H, W, 3], or [W, H, 3] where rows become columns.
    """
    if matrix is None:
        return pixels
    a, b, c, d = matrix
    swaps = is_swapping(matrix)
    pixels = pixels.transpose(1, 0, 2) if swaps else pixels
    flip_x, flip_y = (c < 0, b < 0) if swaps else (a < 0, d < 0)
    return np.ascontiguousarray(pixels[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def is_swapping(matrix: tuple[int, int, int, int] | None) -> bool:
    """Whether rows become columns."""
    return matrix is not None and matrix[0] == 0


def display_matrix(frame: Any) -> tuple[int, int, int, int] | None:
    """a, b, c, d of a PyAV frame's display matrix; None where it has none, or one that is not upright."""
    from av.sidedata.sidedata import Type

    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return None
    a, b, _, c, d = (int(value) for value in np.frombuffer(data, np.int32, 5))
    straight = a and d and not (b or c)
    crossed = b and c and not (a or d)
    return (a, b, c, d) if straight or crossed else None


def _has_alpha(layout: Any) -> bool:
    return bool(layout.has_palette) or any(component.is_alpha for component in layout.components)
