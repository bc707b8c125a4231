"""Which frames of a clip are taken, and for which moments: exact arithmetic, one frame held back.

Times are seconds from the first frame, as fractions, so that 1001/30000 is what it says and an hour of frames does
not drift. Two rules:

    select     without a new rate: the frames whose own time lies in [start, end)
    resample   with one: output k stands at start + k / fps, as long as that lies before the end of the clip (the last
               frame's time and duration) and before `end`, and shows the frame whose time is nearest; of two equally
               near, the earlier

       frames   0----1--------2-----3---|     variable: each shown until the next
       output   0       1        2      |     3 moments at a third of a second: frames 0, 1 or 2, 2 or 3 ...

A frame may be repeated or left out; timestamps of a variable frame rate need nothing more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError

FrameRate: TypeAlias = "Fraction | int | float | str"


class Shown(NamedTuple):
    """A frame of a clip, its pixels still to be made.

    Args:
        time: Seconds from the first frame.
        duration: Seconds until the next.
        pixels: Makes the frame, uint8 [H, W, 3].
    """

    time: Fraction
    duration: Fraction
    pixels: Callable[[], NDArray[np.uint8]]


def as_frame_rate(fps: FrameRate) -> Fraction:
    """A frame rate as the fraction it means: 25, "30000/1001", or 29.97, which is 2997/100.

    Raises:
        InputError: Not a number above 0 and at most 1000.
    """
    try:
        rate = Fraction(str(fps).strip())
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"fps={fps!r}: write a number such as 8, 29.97 or 30000/1001") from error
    if not 0 < rate <= 1000:
        raise InputError(f"fps={fps}: allowed is more than 0 and at most 1000 frames a second")
    return rate


def select(shown: Iterator[Shown], start: Fraction, end: Fraction | None) -> Iterator[Shown]:
    """Frames whose own time lies in [start, end).

    Args:
        shown: In order of time.
        start: Seconds.
        end: Seconds; None for the end of the clip.

    Yields:
        The frames.
    """
    for frame in shown:
        if end is not None and frame.time >= end:
            return
        if frame.time >= start:
            yield frame


def resample(shown: Iterator[Shown], fps: Fraction, start: Fraction, end: Fraction | None) -> Iterator[Shown]:
    """The nearest frame for every moment start + k / fps before the end.

    Args:
        shown: In order of time, from one at or before `start` on.
        fps: Frames a second of the output.
        start: Seconds.
        end: Seconds; None for the end of the clip.

    Yields:
        Frames whose times are those moments; equal `pixels` where a frame repeats.
    """
    step = 1 / fps
    moment = start
    held: Shown | None = None
    for frame in shown:
        if held is not None:
            middle = (held.time + frame.time) / 2
            while moment <= middle and (end is None or moment < end):
                yield Shown(moment, step, held.pixels)
                moment += step
        if end is not None and moment >= end:
            return
        held = frame
    if held is not None:
        stop = held.time + held.duration
        stop = stop if end is None else min(stop, end)
        while moment < stop:
            yield Shown(moment, step, held.pixels)
            moment += step


def num_resampled(duration: Fraction, fps: Fraction) -> int:
    """How many frames `resample` gives for a whole clip of `duration` seconds."""
    return math.ceil(duration * fps)
