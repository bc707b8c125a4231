"""OBJ and PLY meshes to occupancy: against solids whose inside is known, and against winding by solid angles."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from multitok.errors import InputError, MediaError
from multitok.frontend.media import Limits, ReadOptions, probe, read, read_volume
from multitok.frontend.media.mesh import Mesh
from multitok.frontend.media.voxels import mesh_grid, voxelise
from multitok.protocol import Modality

Corners = NDArray[np.float64]
Faces = NDArray[np.int64]
BOX = np.array(
    [
        *((0, 2, 1), (1, 2, 3), (4, 5, 6), (5, 7, 6), (0, 1, 4), (1, 5, 4)),
        *((2, 6, 3), (3, 6, 7), (0, 4, 2), (2, 4, 6), (1, 3, 5), (3, 7, 5)),
    ]
)


def box(low: Any = (0, 0, 0), high: Any = (1, 1, 1)) -> tuple[Corners, Faces]:
    """Corner i has x from bit 0 of i, y from bit 1, z from bit 2; faces look outwards."""
    bits = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)], np.float64)
    return np.array(low) + bits * (np.array(high, np.float64) - low), BOX.copy()


def sphere(radius: float = 1.0, rings: int = 40) -> tuple[Corners, Faces]:
    """A globe of `rings` by twice as many quads, each two triangles."""
    theta = np.linspace(0, np.pi, rings + 1)
    phi = np.arange(2 * rings) * np.pi / rings
    t, p = np.meshgrid(theta, phi, indexing="ij")
    corners = radius * np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], -1).reshape(-1, 3)
    faces = []
    for i in range(rings):
        for j in range(2 * rings):
            a, b = i * 2 * rings + j, i * 2 * rings + (j + 1) % (2 * rings)
            faces += [(a, a + 2 * rings, b), (b, a + 2 * rings, b + 2 * rings)]
    return corners, np.array(faces)


def together(*parts: tuple[Corners, Faces]) -> tuple[Corners, Faces]:
    counts = np.cumsum([0, *(len(corners) for corners, _ in parts)])
    return np.concatenate([c for c, _ in parts]), np.concatenate(
        [f + n for (_, f), n in zip(parts, counts[:-1], strict=True)]
    )


def obj(corners: Corners, faces: Faces) -> bytes:
    lines = ["# a mesh", "o thing", *(f"v {x!r} {y!r} {z!r}" for x, y, z in corners.tolist()), "vn 0 0 1"]
    return "\n".join([*lines, *(f"f {a + 1}//1 {b + 1}//1 {c + 1}//1" for a, b, c in faces.tolist()), ""]).encode()


def ply(corners: Corners, faces: Faces, form: str, *, mixed: bool = False) -> bytes:
    """With a colour at each corner, and an element that is to be passed over; `mixed`: a face of no corners too."""
    rows = [*faces.tolist(), []] if mixed else faces.tolist()
    header = (
        f"ply\nformat {form} 1.0\ncomment made by hand\nelement camera 1\nproperty float view\n"
        f"element vertex {len(corners)}\nproperty float x\nproperty float y\nproperty float z\nproperty uchar red\n"
        f"element face {len(rows)}\nproperty list uchar int vertex_indices\nend_header\n"
    ).encode()
    if form == "ascii":
        body = ["1.5", *(f"{x:.9g} {y:.9g} {z:.9g} 7" for x, y, z in corners)]
        return header + "\n".join([*body, *(f"{len(row)} {' '.join(map(str, row))}" for row in rows), ""]).encode()
    order = "<" if "little" in form else ">"
    return b"".join(
        [
            header,
            struct.pack(order + "f", 1.5),
            *(struct.pack(order + "3fB", *corner, 7) for corner in corners),
            *(struct.pack(f"{order}B{len(row)}i", len(row), *row) for row in rows),
        ]
    )


def grid(
    corners: Corners, faces: Faces, resolution: int, *, is_solid: bool = True
) -> tuple[NDArray[np.float32], Corners]:
    """Occupancy, and the centres of its voxels as [Z, Y, X, 3]."""
    mesh = Mesh(np.asarray(corners, np.float64), faces)
    info = mesh_grid("a", mesh, resolution, Limits())
    voxels = voxelise("a", mesh, info, resolution, is_solid=is_solid, limits=Limits())
    z, y, x = np.indices(voxels.shape)
    affine = np.array(info.affine)
    return voxels, np.stack([x, y, z], -1) @ affine[:3, :3].T + affine[:3, 3]


def winding(corners: Corners, faces: Faces, point: Corners) -> float:
    """How often a surface goes round a point: its triangles' solid angles (Van Oosterom and Strackee 1983), summed."""
    a, b, c = (corners[faces[:, i]] - point for i in range(3))
    la, lb, lc = (np.linalg.norm(each, axis=1) for each in (a, b, c))
    above = np.einsum("ij,ij->i", a, np.cross(b, c))
    below = la * lb * lc + (a * b).sum(1) * lc + (b * c).sum(1) * la + (c * a).sum(1) * lb
    return float(2 * np.arctan2(above, below).sum() / (4 * math.pi))


def test_a_sphere_is_a_ball() -> None:
    voxels, centres = grid(*sphere(), 48)
    radius = np.linalg.norm(centres, axis=-1)
    step = 2 / 48
    assert (voxels[radius < 0.995] == 1).all()
    assert (voxels[radius > 1 + step] == 0).all()
    assert voxels.dtype == np.float32
    assert set(np.unique(voxels)) == {0.0, 1.0}
    skin, _ = grid(*sphere(), 48, is_solid=False)
    assert (skin <= voxels).all()
    assert (skin[radius < 1 - 2 * step] == 0).all()
    inner = (radius < 1) & (skin == 0)
    assert abs(inner.sum() + skin.sum() / 2 - 4 / 3 * math.pi * 24**3) / (4 / 3 * math.pi * 24**3) < 0.02


def test_a_box_along_the_grid_fills_it_whole_and_the_shorter_sides_lie_in_the_middle() -> None:
    assert grid(*box(), 16)[0].all()
    voxels, centres = grid(*box(high=(4, 2, 1)), 16)
    inside = ((centres > 0) & (centres < (4, 2, 1))).all(-1)
    assert inside.sum() == 16 * 8 * 4
    assert (voxels[inside] == 1).all()
    apart = np.maximum(0, np.maximum(-centres, centres - (4, 2, 1))).max(-1)
    assert (voxels[apart > 0.25] == 0).all()
    assert np.flatnonzero(voxels.any((1, 2))).tolist() in ([6, 7, 8, 9], [5, 6, 7, 8, 9, 10], [6, 7, 8, 9, 10])


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6))
def test_inside_is_what_winding_says(seed: int) -> None:
    """Of two overlapping, turned boxes: every centre that is clear of the surface."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(2):
        corners, faces = box(-rng.uniform(0.2, 1, 3), rng.uniform(0.2, 1, 3))
        turn = np.linalg.qr(rng.standard_normal((3, 3)))[0]
        parts.append((corners @ (turn * np.sign(np.linalg.det(turn))).T, faces))
    corners, faces = together(*parts)
    voxels, centres = grid(corners, faces, 12)
    skin, _ = grid(corners, faces, 12, is_solid=False)
    for index in rng.permutation(12**3)[:150]:
        place = np.unravel_index(index, voxels.shape)
        if not skin[place]:
            assert voxels[place] == (abs(winding(corners, faces, centres[place])) > 0.5), place


def test_a_cavity_stays_empty_and_faces_that_look_the_wrong_way_do_not_matter() -> None:
    outer, (corners, faces) = box((-2, -2, -2), (2, 2, 2)), box((-1, -1, -1), (1, 1, 1))
    hollow, centres = grid(*together(outer, (corners, faces[:, ::-1])), 20)
    inside = np.abs(centres).max(-1)
    assert (hollow[inside < 0.8] == 0).all()
    assert (hollow[(inside > 1.2) & (inside < 2)] == 1).all()
    mixed = outer[1].copy()
    mixed[::2] = mixed[::2, ::-1]
    assert np.array_equal(grid(outer[0], mixed, 20)[0], grid(*outer, 20)[0])


def test_a_hole_is_closed_and_a_sheet_keeps_its_skin() -> None:
    corners, faces = sphere()
    whole, centres = grid(corners, faces, 32)
    middle = corners[faces].mean(1)
    kept = faces[middle.sum(1) < 1.69]  # away from the extremes, which place the grid
    holed, _ = grid(corners, kept, 32)
    assert len(faces) - len(kept) > 20
    radius = np.linalg.norm(centres, axis=-1)
    assert (holed[radius < 0.9] == 1).mean() > 0.99
    assert (whole != holed).mean() < 0.01
    sheet = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)], np.float64)
    flat, _ = grid(sheet, np.array([(0, 1, 2), (1, 3, 2)]), 8)
    assert flat.sum() == 64
    assert (flat.sum(0) == 1).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=8, max_size=8), st.integers(1, 9))
def test_corners_on_the_rays_leak_nowhere(points: list[tuple[int, int, int]], resolution: int) -> None:
    """Closed meshes of whole numbers, whose edges and corners meet rays: all rays along an axis agree."""
    corners = np.array(points, np.float64)
    if np.ptp(corners, axis=0).max() == 0:
        return
    mesh = Mesh(corners, BOX)
    info = mesh_grid("a", mesh, resolution, Limits())
    solids = []
    for is_solid in (False, True):
        try:
            solids.append(voxelise("a", mesh, info, resolution, is_solid=is_solid, limits=Limits()))
        except InputError:  # thinner than a voxel
            return
    skin, voxels = solids
    # What is filled is skin, or lies behind skin whichever way one looks.
    for place in np.argwhere((voxels == 1) & (skin == 0)):
        z, y, x = place
        for line, at in ((skin[:, y, x], z), (skin[z, :, x], y), (skin[z, y], x)):
            assert line[:at].any() == line[at + 1 :].any()


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("mixed", [False, True])
def test_every_format_gives_the_same(form: str, mixed: bool) -> None:
    corners, faces = sphere(rings=8)
    corners = corners.astype(np.float32).astype(np.float64)
    expected, place = read_volume(obj(corners, faces), "a.obj", options=ReadOptions(mesh_resolution=24))
    assert np.array_equal(expected, grid(corners, faces, 24)[0])
    assert place.spacing == pytest.approx((2 / 24,) * 3)
    found, also = read_volume(ply(corners, faces, form, mixed=mixed), "a.ply", options=ReadOptions(mesh_resolution=24))
    assert np.array_equal(found, expected)
    assert also == place


def test_quads_negative_numbers_and_continued_lines() -> None:
    corners, _ = box()
    lines = [f"v {x} {y} {z}" for x, y, z in corners]
    quads = [(1, 3, 4, 2), (5, 6, 8, 7), (1, 2, 6, 5), (3, 7, 8, 4), (1, 5, 7, 3), (2, 4, 8, 6)]
    faces = [f"f {a - 9}/1 \\\n {b}/2/3 {c} {d - 9}" for a, b, c, d in quads]
    data = "\r\n".join([*lines, *faces]).encode()
    options = ReadOptions(mesh_resolution=6)
    assert np.array_equal(read(data, "a.obj", options=options), grid(*box(), 6)[0])
    assert probe(data, "a.obj", options=options).extent == (6, 6, 6)
    assert probe(data, "a.obj").extent == (64, 64, 64)
    skin = read(data, "a.obj", options=ReadOptions(mesh_resolution=6, mesh_fill="surface"))
    assert not skin[2:4, 2:4, 2:4].any()  # type: ignore[call-overload, index, union-attr]
    assert read(data, "a.obj", modality=Modality.TEXT) == data.decode()


TRIANGLE = b"v 0 0 0\nv 1 0 0\nv 0 1 0\n"
PLY = b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nelement face 1\n"


@pytest.mark.parametrize(
    ("name", "data", "error", "message"),
    [
        ("a.obj", TRIANGLE, InputError, "3 corners and no faces"),
        ("a.obj", TRIANGLE + b"f 1 2 4\n", MediaError, r"a face has corner 3, the mesh has 3"),
        ("a.obj", TRIANGLE + b"f 1 2 0\n", MediaError, "line 4: 'f 1 2 0'"),
        ("a.obj", TRIANGLE + b"f 1 2\n", MediaError, "three corners or more"),
        ("a.obj", TRIANGLE + b"f a b c\n", MediaError, "line 4"),
        ("a.obj", b"v 1 2\n", MediaError, "three numbers"),
        ("a.obj", b"v 1 2 x\n", MediaError, "line 1"),
        ("a.obj", b"v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", InputError, r"corner 0 is \[nan, 0.0, 0.0\]"),
        ("a.obj", b"v 1 1 1\nf 1 1 1\n", InputError, "more than a point"),
        ("a.obj", b"v 0 0 0\nv 1 1 1\nf 1 2 2\n", InputError, "thinner than a voxel"),
        ("a.obj", b"hello world\n", MediaError, "no line of it is a corner"),
        ("a.obj", b"", InputError, "empty"),
        ("a.ply", PLY[:40], MediaError, "header has no end"),
        ("a.ply", PLY + b"property list uchar int vertex_indices\nend_header\n0 0 0\n", MediaError, "cut short"),
        ("a.ply", PLY + b"property list uchar int other\nend_header\n", MediaError, "cut short|no vertex_indices"),
        ("a.ply", PLY.replace(b"float z", b"floot z") + b"end_header\n", MediaError, "not understood"),
        ("a.ply", PLY.replace(b"ascii", b"utf8") + b"end_header\n", MediaError, "not understood"),
        ("a.ply", PLY.replace(b"vertex 3", b"vertex 99999") + b"end_header\n", MediaError, "99,999 rows of 'vertex'"),
        ("a.ply", ply(*box(), "binary_little_endian")[:-5], MediaError, "cut short: 5 bytes|cut short"),
        ("a.ply", b"plyers", MediaError, "no volume format"),
    ],
)
def test_broken_meshes(name: str, data: bytes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read(data, name)


def test_limits() -> None:
    with pytest.raises(InputError, match=r"max_bytes=1,000"):
        read(obj(*box()), "a.obj", limits=Limits(max_bytes=1_000))
