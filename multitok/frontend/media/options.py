"""How files are read where there is a choice: part of what a job's output depends on, and so of its plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

from multitok.errors import InputError
from multitok.frontend.media.timing import as_frame_rate
from multitok.frontend.media.windows import VolumeWindow, Window, parse_window
from multitok.protocol import Json

_LARGEST_RESOLUTION = 1024


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Choices that change what `read` gives.

    Args:
        fps: Frames a second of videos and animations, nearest by time; None gives the stored frames. `as_frame_rate`
            makes one from a number or a text. Arrays have no times, and keep their frames.
        frame: Which frame or page of an animated or many-paged picture is read as a still, from 0; None refuses it.
        window: Which values of a volume become 0 and 1; see `windows.py`.
        orientation: "ras" turns and mirrors volumes that say how they lie to Right, Anterior, Superior; "stored" leaves
            them.
        mesh_resolution: Voxels along the longest side of a mesh; its grid has as many along each axis.
        mesh_fill: "solid" fills what a mesh encloses, "surface" keeps its skin alone.

    Raises:
        InputError: A value that is not allowed.
    """

    fps: Fraction | None = None
    frame: int | None = None
    window: VolumeWindow = "auto"
    orientation: Literal["ras", "stored"] = "ras"
    mesh_resolution: int = 64
    mesh_fill: Literal["solid", "surface"] = "solid"

    def __post_init__(self) -> None:
        if self.fps is not None:
            object.__setattr__(self, "fps", as_frame_rate(self.fps))
        if self.frame is not None and self.frame < 0:
            raise InputError(f"frame={self.frame}: give 0 or more")
        if not isinstance(self.window, Window) and self.window not in ("auto", "stored"):
            raise InputError(f"window={self.window!r}: give 'auto', 'stored' or a Window")
        if self.orientation not in ("ras", "stored"):
            raise InputError(f"orientation={self.orientation!r}: give 'ras' or 'stored'")
        if not 1 <= self.mesh_resolution <= _LARGEST_RESOLUTION:
            raise InputError(f"mesh_resolution={self.mesh_resolution}: give 1 to {_LARGEST_RESOLUTION:,}")
        if self.mesh_fill not in ("solid", "surface"):
            raise InputError(f"mesh_fill={self.mesh_fill!r}: give 'solid' or 'surface'")

    def to_json(self) -> dict[str, Json]:
        """The options as JSON values; `from_json` inverts it."""
        window = self.window
        return {
            "fps": None if self.fps is None else str(self.fps),
            "frame": self.frame,
            "window": window if isinstance(window, str) else [window.low, window.high, window.percent],
            "orientation": self.orientation,
            "mesh_resolution": self.mesh_resolution,
            "mesh_fill": self.mesh_fill,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReadOptions:
        """Rebuild options from what `to_json` returned."""
        window = data["window"]
        return cls(
            fps=None if data["fps"] is None else Fraction(data["fps"]),
            frame=data["frame"],
            window=parse_window(window) if isinstance(window, str) else Window(*window),
            orientation=data["orientation"],
            mesh_resolution=data["mesh_resolution"],
            mesh_fill=data["mesh_fill"],
        )
