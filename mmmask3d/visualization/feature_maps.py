"""Pictures of what an encoder gives: principal components, labels, normals and matches."""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mmmask3d.visualization.colours import hatch

_TAILS = (0.02, 0.98)  # of the values, which take the ends of the colours
_GOOD, _BAD = (36, 160, 72), (200, 48, 40)


def principal_colours(features: Tensor) -> np.ndarray:
    """The first three principal components of some frames' features as colours.

    Args:
        features: ``(F, h, w, C)``; the components are those of all frames together.

    Returns:
        RGB uint8 (F, h, w, 3). A component's sign is chosen so that its largest value is positive.
    """
    flat = features.double().flatten(0, 2)
    flat = flat - flat.mean(0)
    vectors = torch.linalg.eigh(flat.T @ flat)[1][:, -3:].flip(1)
    shown = flat @ vectors
    extreme = shown.gather(0, shown.abs().argmax(0, keepdim=True))
    shown = shown * extreme.sign()
    low, high = torch.quantile(shown, torch.tensor(_TAILS, dtype=shown.dtype), dim=0)
    unit = ((shown - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)
    colours = (255 * unit).round().to(torch.uint8).unflatten(0, features.shape[:3])
    return colours.numpy()


def label_colours(labels: np.ndarray, palette: Sequence[Sequence[int]]) -> np.ndarray:
    """Class ids (H, W), 255 = unlabelled, as RGB uint8 (H, W, 3); unlabelled pixels are hatched."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette
    return np.where((labels == 255)[..., None], hatch(*labels.shape), table[labels])


def normal_colours(normals: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """Normals (3, H, W) as RGB uint8 (H, W, 3): right, up and towards the camera are bright."""
    length = np.linalg.norm(normals, axis=0).clip(1e-6)
    unit = normals / length * np.array([1, -1, -1])[:, None, None]
    colours = np.rint(127.5 * (unit + 1)).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)
    if known is None:
        return colours
    return np.where(known[..., None], colours, hatch(*known.shape))


def scaled_to(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """An RGB picture at ``(height, width)``; blocks stay blocks."""
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


def draw_matches(
    first: np.ndarray,
    second: np.ndarray,
    points: np.ndarray,
    found: np.ndarray,
    right: np.ndarray,
) -> np.ndarray:
    """Two views side by side with lines between points: green if right, else red.

    Args:
        first: RGB uint8 (H, W, 3).
        second: of the same size.
        points: (N, 2) x and y in the first.
        found: (N, 2) in the second.
        right: (N,) bool.
    """
    width = first.shape[1]
    canvas = Image.fromarray(np.concatenate((first, second), axis=1))
    draw = ImageDraw.Draw(canvas)
    for (x, y), (u, v), good in zip(points, found, right, strict=True):
        colour = _GOOD if good else _BAD
        draw.line((x, y, u + width, v), fill=colour, width=1)
        for a, b in ((x, y), (u + width, v)):
            draw.ellipse((a - 2, b - 2, a + 2, b + 2), outline=colour)
    return np.asarray(canvas)
