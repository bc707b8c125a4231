"""Meshes -> occupancy: 1 where a voxel is filled or the surface goes through it, 0 elsewhere; float32 [Z, Y, X].

The grid is a cube of N^3 voxels around the mesh: its longest side spans N voxels, the others lie in the middle. x, y
and z of the mesh are x, y and z of the grid.

Rays run through the centres of all voxels, along x, along y and along z. Corners are rounded to 2^-16 of a voxel, and
which ray meets which triangle is decided in integers, the edges of neighbours never both and never neither: so a closed
mesh is crossed an even number of times whatever it looks like.

    surface   a voxel is skin where the surface crosses one of its three centre lines: thin, and without holes
    solid     skin, and the voxels whose centre lies inside by at least two of the three rays. On a ray whose crossings
              face in and out in equal numbers, inside is where they do not cancel (overlapping parts unite); where
              they do not but their number is even, inside is behind an odd number of them (faces that look the wrong
              way); on a ray with an odd number, which only an open mesh has, nothing is inside

So a mesh with a small hole is filled nearly as if it had none, and a sheet, which encloses nothing, keeps its skin.

Memory: the grid, and 13 bytes for each crossing.  Shape letters: N voxels, F triangles.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from multitok.errors import InputError
from multitok.frontend.media.geometry import VolumeInfo, as_affine
from multitok.frontend.media.mesh import Mesh
from multitok.frontend.media.source import Limits, check_size

_FINE = 1 << 16
_PAIRS = 1 << 18
_CROSSING_BYTES = 13


def mesh_grid(name: str, mesh: Mesh, resolution: int, limits: Limits) -> VolumeInfo:
    """Where the voxels of a mesh's grid lie, in the mesh's own unit.

    Args:
        name: The file's name.
        mesh: The mesh.
        resolution: N.
        limits: How large the grid may be.

    Returns:
        The grid's place.

    Raises:
        InputError: A mesh without extent, or a grid above the limits.
    """
    check_size(name, f"{resolution:,}^3 voxels", 4 * resolution**3, limits)
    used = mesh.corners[mesh.triangles.ravel()]
    low, high = used.min(0), used.max(0)
    with np.errstate(over="ignore"):
        side = float((high - low).max())
    size = side / resolution
    if not (np.isfinite(side) and size > 0 and np.isfinite(1 / size)):
        raise InputError(f"{name}: the mesh spans {side:g} along its longest side; a grid needs more than a point")
    affine = np.diag([size, size, size, 1.0])
    affine[:3, 3] = (low / 2 + high / 2) - side / 2 + size / 2
    return VolumeInfo(affine=as_affine(affine))


def voxelise(
    name: str, mesh: Mesh, info: VolumeInfo, resolution: int, *, is_solid: bool, limits: Limits
) -> NDArray[np.float32]:
    """The occupancy of a mesh.

    Args:
        name: The file's name.
        mesh: The mesh.
        info: What `mesh_grid` gave.
        resolution: N.
        is_solid: Fill what is inside.
        limits: How many crossings may be held.

    Returns:
        [N, N, N] float32 of 0 and 1.

    Raises:
        InputError: Too many crossings, or a mesh so thin that it slips between all rays.
    """
    affine = np.array(info.affine)
    # Grid coordinates: voxel i spans [i, i + 1), and its centre is at i + 1/2.
    corners = (mesh.corners - affine[:3, 3]) / np.diag(affine)[:3] + 0.5
    fine = np.rint(np.clip(corners, 0, resolution) * _FINE).astype(np.int64)
    inside = np.zeros((resolution,) * 3, np.uint8)
    skin = np.zeros((resolution,) * 3, bool)
    for axis in range(3):  # of x, y, z: the one that the rays run along
        across = [(axis + 1) % 3, (axis + 2) % 3]
        column, depth, facing = _crossings(name, fine[:, [*across, axis]], mesh.triangles, resolution, limits)
        # Views of the grids, in which the rays run along the last axis and columns come in the order of `across`.
        order = [2 - across[0], 2 - across[1], 2 - axis]
        rows, columns = np.divmod(column, resolution)
        cells = np.minimum(depth.astype(np.int64) // _FINE, resolution - 1)
        skin.transpose(order)[rows, columns, cells] = True
        if is_solid:
            _fill(inside.transpose(order), rows, columns, depth, facing)
    filled = skin | (inside >= 2) if is_solid else skin
    if not filled.any():
        raise InputError(f"{name}: the mesh is thinner than a voxel everywhere; give a larger mesh_resolution")
    return filled.astype(np.float32)


def _fill(
    votes: NDArray[np.uint8],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    depth: NDArray[np.float64],
    facing: NDArray[np.int8],
) -> None:
    """Add 1 to every voxel whose centre is inside along its ray, one slab of rays at a time."""
    resolution = votes.shape[0]
    # The first voxel whose centre lies at or behind the crossing.
    first = np.ceil(depth / _FINE - 0.5).astype(np.int64)
    order = np.argsort(rows, kind="stable")
    bounds = np.searchsorted(rows[order], np.arange(resolution + 1))
    for row in range(resolution):
        here = order[bounds[row] : bounds[row + 1]]
        if not len(here):
            continue
        place = (columns[here], np.clip(first[here], 0, resolution))
        winding = np.zeros((resolution, resolution + 1), np.int32)
        count = np.zeros((resolution, resolution + 1), np.int32)
        np.add.at(winding, place, facing[here])
        np.add.at(count, place, 1)
        np.cumsum(winding, axis=1, out=winding)
        np.cumsum(count, axis=1, out=count)
        balanced, even = winding[:, -1:] == 0, count[:, -1:] % 2 == 0
        is_inside = np.where(balanced, winding != 0, even & (count % 2 == 1))
        votes[row] += is_inside[:, :-1]


def _crossings(
    name: str, fine: NDArray[np.int64], triangles: NDArray[np.int64], resolution: int, limits: Limits
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int8]]:
    """Column (u * N + v), depth and facing of every meeting of a ray with a triangle; corners are (u, v, depth)."""
    points = fine[triangles]
    u, v = points[..., 0], points[..., 1]
    area = _cross(u, v, 0, 1, u[:, 2], v[:, 2])
    kept = np.flatnonzero(area)  # triangles seen edge-on are met by no ray
    points, area = points[kept], area[kept]
    # Every triangle the same way round, so that one rule says which edges are its own.
    flipped = area < 0
    points[flipped] = points[flipped][:, [0, 2, 1]]
    facing = np.where(flipped, -1, 1).astype(np.int8)
    area = np.abs(area)
    half = _FINE // 2
    low = -((half - points[..., :2].min(1)) // _FINE)  # first and last column whose centre the bounds hold
    low = np.maximum(low, 0)
    high = np.minimum((points[..., :2].max(1) - half) // _FINE, resolution - 1)
    spans = np.maximum(high - low + 1, 0)
    num_pairs = spans[:, 0] * spans[:, 1]
    ends = np.cumsum(num_pairs)
    found = [(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int8))]
    num_found = 0
    begin = 0
    while begin < len(points):
        # As many triangles as bring no more than `_PAIRS` pairs with columns, one at least.
        done = ends[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends, done + _PAIRS, side="right")))
        part = slice(begin, end)
        found.append(_met(points[part], area[part], facing[part], low[part], spans[part], resolution))
        num_found += len(found[-1][0])
        check_size(name, f"{num_found:,} crossings of rays and mesh", num_found * _CROSSING_BYTES, limits)
        begin = end
    columns, depths, faces = zip(*found, strict=True)
    return np.concatenate(columns), np.concatenate(depths), np.concatenate(faces)


def _met(
    points: NDArray[np.int64],
    area: NDArray[np.int64],
    facing: NDArray[np.int8],
    low: NDArray[np.int64],
    spans: NDArray[np.int64],
    resolution: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int8]]:
    num_pairs = spans[:, 0] * spans[:, 1]
    triangle = np.repeat(np.arange(len(points)), num_pairs)
    step = np.arange(len(triangle)) - np.repeat(np.cumsum(num_pairs) - num_pairs, num_pairs)
    wide = spans[triangle, 1]
    column_u, column_v = low[triangle, 0] + step // wide, low[triangle, 1] + step % wide
    ray_u, ray_v = column_u * _FINE + _FINE // 2, column_v * _FINE + _FINE // 2
    u, v = points[triangle, :, 0], points[triangle, :, 1]
    met = np.ones(len(triangle), bool)
    depth = np.zeros(len(triangle))
    for start, end, opposite in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        side = _cross(u, v, start, end, ray_u, ray_v)
        du, dv = u[:, end] - u[:, start], v[:, end] - v[:, start]
        # A ray through an edge belongs to one of the two triangles that share it: they run along it in opposite ways.
        owns = (dv > 0) | ((dv == 0) & (du < 0))
        met &= (side > 0) | ((side == 0) & owns)
        depth += side * (points[triangle, opposite, 2] / area[triangle])
    return (column_u * resolution + column_v)[met], depth[met], facing[triangle][met]


def _cross(
    u: NDArray[np.int64],
    v: NDArray[np.int64],
    start: int,
    end: int,
    point_u: NDArray[np.int64],
    point_v: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Twice the area of (start, end, point), positive where the point lies to the left. Exact: below 2^54."""
    return (u[:, end] - u[:, start]) * (point_v - v[:, start]) - (v[:, end] - v[:, start]) * (point_u - u[:, start])
