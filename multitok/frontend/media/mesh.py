"""Triangle meshes from `.obj` and `.ply` files, with NumPy alone: corners and faces, nothing of colours or textures.

OBJ: `v` and `f` lines; faces of any number of corners are cut into fans, negative numbers count from the end. PLY:
ASCII and binary of both byte orders, elements `vertex` and `face`; other elements and properties are passed over. Lines
and points without faces enclose nothing and are refused.

Shape letters: P corners, F triangles.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media.source import Source, check_size, guarded

_PLY_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip
_PLY_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_FACE_LISTS = ("vertex_indices", "vertex_index")


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles in space.

    Args:
        corners: [P, 3] float64: x, y, z.
        triangles: [F, 3] int64 into `corners`.
    """

    corners: NDArray[np.float64]
    triangles: NDArray[np.int64]


def read_mesh(source: Source, format_name: str) -> Mesh:
    """The triangles of a mesh file.

    Args:
        source: Where the bytes are.
        format_name: "obj" or "ply".

    Returns:
        The mesh.

    Raises:
        InputError: No faces, a corner that is not finite, or a limit is exceeded.
        MediaError: Cut short or damaged, or a face of corners that there are not.
    """
    with guarded(source.name, f"{format_name.upper()} mesh"):
        if format_name == "obj":
            corners, sizes, indices = _read_obj(source)
        else:
            corners, sizes, indices = _read_ply(source)
    name = source.name
    if not len(sizes):
        raise InputError(f"{name}: the mesh has {len(corners):,} corners and no faces, so that nothing has a surface")
    wrong = np.flatnonzero((indices < 0) | (indices >= len(corners)))
    if len(wrong):
        raise MediaError(
            f"{name}: a face has corner {int(indices[wrong[0]]):,}, the mesh has {len(corners):,} (counted from 0)"
        )
    if not np.isfinite(corners).all():
        first = int(np.isfinite(corners).all(1).argmin())
        raise InputError(f"{name}: corner {first:,} is {corners[first].tolist()}, not a finite point")
    return Mesh(corners, _fans(sizes, indices))


def _fans(sizes: NDArray[np.int64], indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Faces as triangles: (0, 1, 2), (0, 2, 3) ... of each; those of fewer than three corners are none."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    num_triangles = np.maximum(sizes - 2, 0)
    first = np.repeat(starts, num_triangles)
    step = np.arange(len(first)) - np.repeat(np.cumsum(num_triangles) - num_triangles, num_triangles)
    return np.stack([indices[first], indices[first + step + 1], indices[first + step + 2]], axis=1)


_Parsed = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


def _read_obj(source: Source) -> _Parsed:
    corners: list[list[float]] = []
    sizes: list[int] = []
    indices: list[int] = []
    with io.TextIOWrapper(source.open(), encoding="latin-1") as lines:
        for number, line in enumerate(_joined(lines), 1):
            words = line.split()
            if not words:
                continue
            try:
                if words[0] == "v":
                    corners.append([float(word) for word in words[1:4]])
                    if len(corners[-1]) < 3:
                        raise ValueError("three numbers are needed")
                elif words[0] == "f":
                    face = [int(word.partition("/")[0]) for word in words[1:]]
                    if len(face) < 3 or 0 in face:
                        raise ValueError("a face has three corners or more, counted from 1")
                    indices += [corner - 1 if corner > 0 else len(corners) + corner for corner in face]
                    sizes.append(len(face))
            except ValueError as error:
                raise MediaError(f"{source.name}: line {number}: {line.strip()[:60]!r}: {error}") from error
    if not corners and not sizes:
        raise MediaError(f"{source.name}: no line of it is a corner (v) or a face (f) of an OBJ mesh")
    return (
        np.array(corners, np.float64).reshape(-1, 3),
        np.array(sizes, np.int64),
        np.array(indices, np.int64),
    )


def _joined(lines: io.TextIOWrapper) -> Iterator[str]:
    """Lines, one that ends in a backslash with the next."""
    begun = ""
    for line in lines:
        stripped = line.rstrip("\r\n")
        if stripped.endswith("\\"):
            begun += stripped[:-1] + " "
            continue
        yield begun + stripped
        begun = ""
    if begun:
        yield begun


@dataclass(frozen=True)
class _Property:
    name: str
    dtype: str
    count: str  # dtype of a list's length; "" for a single value


@dataclass(frozen=True)
class _Element:
    name: str
    size: int
    properties: list[_Property]


def _read_ply(source: Source) -> _Parsed:
    data = source.read()
    end = data.find(b"end_header")
    body = data.find(b"\n", end) + 1
    if end < 0 or body <= 0:
        raise MediaError(f"{source.name}: PLY mesh is cut short: its header has no end")
    order, elements = _ply_header(source, data[:end].decode("latin-1"))
    for element in elements:
        # Every row of a binary file takes a byte at least, of a text two: more cannot be there.
        if element.size > len(data):
            raise MediaError(
                f"{source.name}: PLY mesh is cut short: {element.size:,} rows of {element.name!r} announced in a file "
                f"of {len(data):,} bytes"
            )
    reader = _AsciiRows(source.name, data[body:]) if not order else _BinaryRows(source.name, data, body, order)
    corners = np.empty((0, 3))
    sizes = indices = np.empty(0, np.int64)
    for element in elements:
        check_size(source.name, f"{element.size:,} rows of {element.name!r}", element.size * 24, source.limits)
        names = [each.name for each in element.properties]
        if element.name == "vertex":
            columns, _, _ = reader.take(element, None)
            missing = [axis for axis in "xyz" if axis not in columns]
            if missing:
                raise MediaError(f"{source.name}: the corners have no {', '.join(missing)}, but {', '.join(names)}")
            corners = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
        elif element.name == "face":
            wanted = next((name for name in _FACE_LISTS if name in names), None)
            if wanted is None:
                raise MediaError(f"{source.name}: the faces have no vertex_indices, but {', '.join(names)}")
            _, sizes, indices = reader.take(element, wanted)
        else:
            reader.take(element, None)
    return corners, sizes, indices


def _ply_header(source: Source, header: str) -> tuple[str, list[_Element]]:
    order: str | None = None
    elements: list[_Element] = []
    for line in header.splitlines()[1:]:
        words = line.split()
        try:
            if words[:1] == ["format"]:
                order = _PLY_ORDERS[words[1]]
            elif words[:1] == ["element"]:
                elements.append(_Element(words[1], int(words[2]), []))
                if elements[-1].size < 0:
                    raise ValueError
            elif words[:2] == ["property", "list"]:
                elements[-1].properties.append(_Property(words[4], _PLY_TYPES[words[3]], _PLY_TYPES[words[2]]))
            elif words[:1] == ["property"]:
                elements[-1].properties.append(_Property(words[2], _PLY_TYPES[words[1]], ""))
        except (KeyError, IndexError, ValueError) as error:
            raise MediaError(f"{source.name}: PLY header line {line[:60]!r} is not understood") from error
    if order is None:
        raise MediaError(f"{source.name}: the PLY header names no format")
    return order, elements


_Taken = tuple[dict[str, NDArray[Any]], NDArray[np.int64], NDArray[np.int64]]


class _BinaryRows:
    """Elements of a binary PLY file, one after the other."""

    def __init__(self, name: str, data: bytes, position: int, order: str) -> None:
        self._name, self._data, self._position, self._order = name, data, position, order

    def take(self, element: _Element, wanted: str | None) -> _Taken:
        """Single properties as columns; of the list `wanted` the lengths and the values."""
        lists = [each for each in element.properties if each.count]
        if not lists:
            row = np.dtype([(f"{i}", self._order + each.dtype) for i, each in enumerate(element.properties)])
            rows = np.frombuffer(self._bytes(element.size * row.itemsize), row)
            return {each.name: rows[f"{i}"] for i, each in enumerate(element.properties)}, _NONE, _NONE
        found = self._equal_rows(element, wanted)
        return ({}, *(self._rows(element, wanted) if found is None else found))

    def _equal_rows(self, element: _Element, wanted: str | None) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """All rows at once where each list is as long as in the first row, as it is in a mesh of triangles."""
        if not element.size:
            return _NONE, _NONE
        start = self._position
        lengths = [self._row(element, None)[1]]
        fields = []
        for i, (each, length) in enumerate(zip(element.properties, lengths[0], strict=True)):
            if each.count:
                fields.append((f"n{i}", self._order + each.count))
            fields.append((f"v{i}", f"{length}{self._order}{each.dtype}" if each.count else self._order + each.dtype))
        self._position = start
        row = np.dtype([(key, form) if form[0] in "<>" else (key, *_sized(form)) for key, form in fields])
        if start + element.size * row.itemsize > len(self._data):
            return None
        rows = np.frombuffer(self._data, row, element.size, start)
        for i, each in enumerate(element.properties):
            if each.count and not (rows[f"n{i}"] == lengths[0][i]).all():
                return None
        self._position = start + element.size * row.itemsize
        index = next((i for i, each in enumerate(element.properties) if each.name == wanted), None)
        if index is None:
            return _NONE, _NONE
        return rows[f"n{index}"].astype(np.int64), rows[f"v{index}"].astype(np.int64).ravel()

    def _rows(self, element: _Element, wanted: str | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        values = [self._row(element, wanted)[0] for _ in range(element.size)]
        return np.array([len(value) for value in values], np.int64), np.concatenate([_NONE, *values])

    def _row(self, element: _Element, wanted: str | None) -> tuple[NDArray[np.int64], list[int]]:
        taken, lengths = _NONE, []
        for each in element.properties:
            length = 1
            if each.count:
                length = int(np.frombuffer(self._bytes(int(each.count[1])), self._order + each.count)[0])
            if length < 0:
                raise MediaError(f"{self._name}: a list of {length} values")
            raw = self._bytes(length * int(each.dtype[1]))
            lengths.append(length)
            if each.name == wanted:
                taken = np.frombuffer(raw, self._order + each.dtype).astype(np.int64)
        return taken, lengths

    def _bytes(self, count: int) -> bytes:
        part = self._data[self._position : self._position + count]
        if len(part) < count:
            missing = count - len(part)
            raise MediaError(f"{self._name}: PLY mesh is cut short: {missing:,} bytes are missing at its end")
        self._position += count
        return part


class _AsciiRows:
    """Elements of an ASCII PLY file, one row a line."""

    def __init__(self, name: str, body: bytes) -> None:
        self._name = name
        self._lines = iter(line for line in body.decode("latin-1").splitlines() if line.strip())

    def take(self, element: _Element, wanted: str | None) -> _Taken:
        """Single properties as columns; of the list `wanted` the lengths and the values."""
        columns: dict[str, list[float]] = {each.name: [] for each in element.properties if not each.count}
        sizes: list[int] = []
        indices: list[int] = []
        for _ in range(element.size):
            line = next(self._lines, None)
            if line is None:
                raise MediaError(f"{self._name}: PLY mesh is cut short: rows of {element.name!r} are missing")
            words = iter(line.split())
            try:
                for each in element.properties:
                    if not each.count:
                        columns[each.name].append(float(next(words)))
                        continue
                    values = [float(next(words)) for _ in range(int(next(words)))]
                    if each.name == wanted:
                        sizes.append(len(values))
                        indices += [int(value) for value in values]
            except (StopIteration, ValueError, OverflowError) as error:
                raise MediaError(f"{self._name}: PLY row {line[:60]!r} is no row of {element.name!r}") from error
        return (
            {key: np.array(values, np.float64) for key, values in columns.items()},
            np.array(sizes, np.int64),
            np.array(indices, np.int64),
        )


def _sized(form: str) -> tuple[str, tuple[int]]:
    """ "3<i4" -> ("<i4", (3,)): a field of several values."""
    return form[-3:], (int(form[:-3]),)


_NONE = np.empty(0, np.int64)
