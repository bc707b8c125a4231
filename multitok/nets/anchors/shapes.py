"""Sizes of a network, read off the shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping


def count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    """How many numbers the group of a pattern takes at the start of the tensors' names: layers, levels or blocks.

    Args:
        shapes: By name.
        pattern: A regular expression with one group.
    """
    found = (re.match(pattern, key) for key in shapes)
    # Not the largest number, which a damaged name could make any.
    return len({match[1] for match in found if match})
