"""Whether features of two views say which points are the same, without any training.

A point of one view goes to the pixel of the other whose features are most similar. Depth, pose and
intrinsics say where it really is. After Probe3D (arXiv 2404.08636), on frames of one's own: recall
within 5, 10 and 20 pixels, by the angle between the views.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmmask3d.evaluation.bootstrap import MeanScores, columns
from mmmask3d.evaluation.frames import Frame

PIXELS = (5, 10, 20)
"""Distances within which a match counts."""
ROTATIONS = (0, 15, 30, 60, 180)
"""Bins of the angle between two views, in degrees."""
_MARGIN = 0.1  # of the sides, left out: a patch's features say nothing of where in it one is there
_QUERY_STEP, _CANDIDATE_STEP = 8, 4  # pixels between points; queries are candidates of their view
_SAME_SURFACE = 0.05  # relative difference of depth beyond which something stands in front
_LEAST_OVERLAP = 0.1  # share of a view's points that the other view sees
_MAX_TRIED, _MAX_PAIRS = 4000, 200


@dataclass
class Pair:
    """Two views and the points of the first that the second sees."""

    first: int  # index of a frame
    second: int  # index of the other
    rotation: float  # angle between them in degrees
    points: Tensor  # (N, 2) x and y in pixels of the first frame, float64
    truth: Tensor  # (N, 2) where they are in the second


def why_no_pairs(frames: Sequence[Frame]) -> str:
    """What is missing for correspondence, for those who find none on the page."""
    for wanted, found in (
        ('metric depth', [f.depth is not None and f.depth_kind == 'metric' for f in frames]),
        ('a pose in frames.jsonl', [bool(f.camera and f.camera.to_world is not None)
                                    for f in frames]),
        ('intrinsics in frames.jsonl or cameras.json',
         [bool(f.camera and f.camera.intrinsic is not None) for f in frames]),
    ):  # fmt: skip
        if not any(found):
            return f'no frame has {wanted}.'
    return 'no two views of a scene see the same points.'


def find_pairs(frames: Sequence[Frame], most: int = _MAX_PAIRS, seed: int = 0) -> list[Pair]:
    """Pairs of views of one scene that see the same points.

    Args:
        frames: those with metric depth, pose and intrinsics are used.
        most: at most so many pairs, spread evenly over them.
        seed: of the choice of pairs that are tried, where there are very many.
    """
    scenes: dict[str, list[int]] = {}
    for i, frame in enumerate(frames):
        if _view(frame) is not None and frame.camera is not None:
            scenes.setdefault(frame.camera.scene, []).append(i)
    tried = [pair for members in scenes.values() for pair in combinations(members, 2)]
    if len(tried) > _MAX_TRIED:
        order = np.random.default_rng(seed).choice(len(tried), _MAX_TRIED, replace=False)
        tried = [tried[i] for i in sorted(order)]
    found = []
    for i, j in tried:
        pair = true_matches(frames, i, j)
        if pair is not None:
            found.append(pair)
    keep = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return [found[i] for i in keep]


def true_matches(frames: Sequence[Frame], first: int, second: int) -> Pair | None:
    """Points of one view that another sees, by depth, pose and intrinsics.

    A point is seen if it falls within the other view (without its margin), where the depth map has
    a reading that agrees within 5 %.

    Returns:
        None if the second sees less than a tenth of the first's points.
    """
    a, b = _view(frames[first]), _view(frames[second])
    if a is None or b is None:
        return None
    points = grid_points(a.depth.shape, _QUERY_STEP)
    z = a.depth[points[:, 1], points[:, 0]].double()
    points, z = points[z > 0].double(), z[z > 0]
    if not len(points):
        return None
    there = b.project(a.unproject(points, z))
    height, width = b.depth.shape
    x, y, depth = there.unbind(1)
    left, top = _MARGIN * (width - 1), _MARGIN * (height - 1)
    seen = (depth > 0) & (x >= left) & (x <= width - 1 - left)
    seen &= (y >= top) & (y <= height - 1 - top)
    column, row = (torch.where(seen, v, 0).round().long() for v in (x, y))
    measured = b.depth[row, column].double()
    seen &= (measured > 0) & ((depth - measured).abs() <= _SAME_SURFACE * depth)
    if seen.double().mean() < _LEAST_OVERLAP:
        return None
    cosine = ((a.to_world[:3, :3].T @ b.to_world[:3, :3]).trace() - 1) / 2
    rotation = float(torch.rad2deg(cosine.clamp(-1, 1).acos()))
    return Pair(first, second, rotation, points[seen], there[seen, :2])


@dataclass
class _View:
    depth: Tensor
    intrinsic: Tensor
    to_world: Tensor

    def unproject(self, points: Tensor, z: Tensor) -> Tensor:
        """Pixels ``(N, 2)`` and depths to world points ``(N, 3)``."""
        rays = torch.cat((points, torch.ones_like(points[:, :1])), 1) @ self.intrinsic.inverse().T
        return (rays * z[:, None]) @ self.to_world[:3, :3].T + self.to_world[:3, 3]

    def project(self, world: Tensor) -> Tensor:
        """World points to ``(N, 3)``: x, y in pixels and z-depth."""
        axes = (world - self.to_world[:3, 3]) @ self.to_world[:3, :3]
        pixels = axes @ self.intrinsic.T
        return torch.cat((pixels[:, :2] / pixels[:, 2:].clamp(min=1e-9), axes[:, 2:]), 1)


def _view(frame: Frame) -> _View | None:
    """The geometry of a frame; None without metric depth, intrinsics and pose."""
    depth, camera = frame.depth, frame.camera
    if depth is None or frame.depth_kind != 'metric' or camera is None:
        return None
    if camera.intrinsic is None or camera.to_world is None:
        return None
    if depth.shape != frame.image.shape[1:]:
        raise ValueError(
            f'{frame.path}: depth of {tuple(depth.shape)} for an image of '
            f'{tuple(frame.image.shape[1:])}; correspondence needs them in one size.'
        )
    return _View(
        depth, torch.as_tensor(camera.intrinsic).double(), torch.as_tensor(camera.to_world).double()
    )


def grid_points(size: Sequence[int], step: int) -> Tensor:
    """Points ``(N, 2)`` int64, x and y, every ``step`` pixels within the margin of a frame."""
    axes = [
        torch.arange(-(-int(_MARGIN * (n - 1)) // 8) * 8, int((1 - _MARGIN) * (n - 1)) + 1, step)
        for n in size
    ]
    y, x = torch.meshgrid(*axes, indexing='ij')
    return torch.stack((x, y), -1).flatten(0, 1)


def sample_features(features: Tensor, points: Tensor, size: Sequence[int]) -> Tensor:
    """Unit features at pixels, bilinear between the centres of the patches.

    Args:
        features: ``(h, w, C)`` of a frame.
        points: ``(N, 2)`` x and y in pixels.
        size: ``(height, width)`` of the frame in pixels.

    Returns:
        ``(N, C)`` float32.
    """
    height, width = size
    place = (2 * points.float() + 1) / torch.tensor([width, height]) - 1
    maps = features.float().permute(2, 0, 1)[None]
    found = F.grid_sample(maps, place[None, None], padding_mode='border', align_corners=False)
    return F.normalize(found[0, :, 0].T, dim=-1)


def nearest_points(features: Tensor, pair: Pair, size: Sequence[int]) -> Tensor:
    """Where the points of a pair's first view are found in its second ``(N, 2)``."""
    queries = sample_features(features[pair.first], pair.points, size)
    candidates = grid_points(size, _CANDIDATE_STEP)
    bank = sample_features(features[pair.second], candidates, size)
    return candidates[(queries @ bank.T).argmax(1)]


def score_pairs(
    features: Tensor, pairs: Sequence[Pair], sizes: Sequence[Sequence[int]]
) -> MeanScores:
    """Recall by distance and rotation, in percent.

    Args:
        features: of all frames, ``(F, h, w, C)``.
        pairs: of views.
        sizes: ``(height, width)`` of each frame.

    Returns:
        ``r5``, ``r10``, ``r20`` over all pairs, ``r10_0-15`` and so on by rotation, and
        ``chance5`` to ``chance20``: the share of the places within reach, which is what features
        that know nothing find. Means over pairs.
    """
    rows: list[dict[str, float]] = []
    for pair in pairs:
        size = sizes[pair.second]
        found = nearest_points(features, pair, size)
        off = (found - pair.truth).norm(dim=1)
        around = torch.cdist(pair.truth, grid_points(size, _CANDIDATE_STEP).double())
        row = {f'r{p}': 100 * float((off <= p).double().mean()) for p in PIXELS}
        row[f'r10_{rotation_bin(pair.rotation)}'] = row['r10']
        row |= {f'chance{p}': 100 * float((around <= p).double().mean()) for p in PIXELS}
        rows.append(row)
    bins = [f'r10_{a}-{b}' for a, b in pairwise(ROTATIONS)]
    names = [f'r{p}' for p in PIXELS] + bins + [f'chance{p}' for p in PIXELS]
    return MeanScores(columns(rows, names), torch.tensor([[p.first, p.second] for p in pairs]))


def rotation_bin(degrees: float) -> str:
    """Name of the bin of a rotation: '15-30'."""
    for low, high in pairwise(ROTATIONS):
        if degrees < high:
            return f'{low}-{high}'
    return f'{ROTATIONS[-2]}-{ROTATIONS[-1]}'
