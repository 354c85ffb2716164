"""Depth camera of the generated rooms: noise, quantisation and holes of a structured-light sensor.

The sensor projects a dot pattern and finds, per pixel, by how much the pattern has shifted. All
its errors are therefore errors of *disparity* and grow with the square of the distance in depth.
What it cannot match it leaves out: such pixels are 0, "no reading", and no noise is added to them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Sensor:
    """Constants of the sensor; the defaults are those of the first Kinect, roughly.

    Noise follows Khoshelham and Elberink 2012 (disparity steps of 1/8 pixel at 640 pixels across,
    an error that grows with the square of the distance) and Barron and Malik 2013 (lateral jitter).
    """

    baseline: float = 0.075  # metres from the camera to the projector, which is to the right
    nearest: float = 0.45  # metres; no readings below
    farthest: float = 6.0  # metres; no readings beyond
    disparity_noise: float = 0.09  # standard deviation in pixels of a 640 pixels wide image
    disparity_step: float = 0.125  # quantisation in pixels of a 640 pixels wide image
    jitter: float = 0.35  # standard deviation, in pixels, of where on the surface is measured
    grazing: float = 0.14  # cosine of the angle of sight below which nothing is matched
    threshold: float = 0.01  # least returned light: reflectance * cosine / depth^2
    edge_loss: float = 0.6  # share of the pixels at depth edges that are matched in vain

    def options(self) -> dict[str, float]:
        """Return the constants by name."""
        return asdict(self)


def shadowed(depth: np.ndarray, shift: float) -> np.ndarray:
    """Return (H, W) bool: whether a surface lies in the shadow that the projector's light leaves.

    Args:
        depth: (H, W) z-depth in metres, 0 where there is nothing.
        shift: Focal length in pixels times baseline in metres; the projector is to the right.
    """
    depth = np.where(depth > 0, depth, np.inf)
    place = np.arange(depth.shape[1]) - shift / depth
    # A point is hidden where another, to its right in the image, is at or left of it as seen from
    # the projector: the order of the two has changed, so the right one is nearer.
    rightmost = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
    hidden = np.zeros(depth.shape, bool)
    hidden[:, :-1] = place[:, :-1] > rightmost[:, 1:]
    return hidden


def _soft_noise(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> np.ndarray:
    """Return (H, W) float32 normal noise whose blobs are about ``cell`` pixels wide."""
    small = (round(shape[0] / cell) + 1, round(shape[1] / cell) + 1)
    noise = rng.standard_normal(small, np.float32)
    return cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _edges(depth: np.ndarray) -> np.ndarray:
    """Return (H, W) bool: pixels whose 3 x 3 neighbourhood holds a jump in depth."""
    kernel = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(depth, kernel) - cv2.erode(depth, kernel)
    # A slanted plane is no jump: its neighbours differ about evenly, so the Laplacian is small.
    bend = np.abs(cv2.Laplacian(depth, cv2.CV_32F))
    return (spread > 0.04 * depth + 0.02) & (bend > 0.03 * depth)


def measure(
    depth: np.ndarray,
    cosine: np.ndarray,
    infrared: np.ndarray,
    focal: float,
    rng: np.random.Generator,
    sensor: Sensor,
) -> np.ndarray:
    """Return (H, W) uint16 millimetres as a sensor would read them, 0 where it has no reading.

    Args:
        depth: (H, W) float32 true z-depth in metres, 0 where there is nothing.
        cosine: (H, W) cosine between the surface's normal and the line of sight.
        infrared: (H, W) reflectance in [0, 1]; 0 for glass and mirrors.
        focal: Focal length in pixels.
        rng: Random numbers; as many are drawn whatever the depth.
        sensor: Constants.
    """
    height, width = depth.shape
    # Dark, slanted and far surfaces return too little; blobs, not single pixels, drop out.
    signal = infrared * cosine / np.maximum(depth, 0.1) ** 2
    fading = 0.3 * _soft_noise(rng, depth.shape, 5) + 0.15 * _soft_noise(rng, depth.shape, 1.5)
    lost = signal < sensor.threshold * np.exp(fading)
    lost |= cosine < sensor.grazing * np.exp(0.2 * fading)
    lost |= shadowed(depth, focal * sensor.baseline)
    lost |= _edges(depth) & (rng.random(depth.shape, np.float32) < sensor.edge_loss)

    y, x = np.mgrid[:height, :width].astype(np.float32)
    x = x + sensor.jitter * rng.standard_normal(depth.shape, np.float32)
    y = y + sensor.jitter * rng.standard_normal(depth.shape, np.float32)
    read = cv2.remap(depth, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    unit = 640.0 / width
    disparity = unit * focal * sensor.baseline / np.maximum(read, 1e-3)
    wobble = 0.6 * rng.standard_normal(depth.shape, np.float32)
    wobble += 0.8 * _soft_noise(rng, depth.shape, 3)
    disparity = disparity + sensor.disparity_noise * wobble
    disparity = np.round(disparity / sensor.disparity_step) * sensor.disparity_step
    measured = unit * focal * sensor.baseline / np.maximum(disparity, 1e-3)
    # The range limit applies to what is measured, so no noise reaches beyond it.
    lost |= (depth <= 0) | (read <= 0)
    lost |= (measured < sensor.nearest) | (measured > sensor.farthest)
    return np.where(lost, 0, np.round(measured * 1000)).astype(np.uint16)
