"""Writes .sens files as SensReader/c++/src/sensorData.h of ScanNet does, for the tests."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np

JPEG, ZLIB = 2, 1  # of the formats
INTRINSIC = ((1170.2, 0, 647.8, 0), (0, 1170.2, 483.8, 0), (0, 0, 1, 0), (0, 0, 0, 1))
NO_POSE = np.full((4, 4), -np.inf)


def make_frames(n, colour_size=(48, 36), depth_size=(24, 18), seed=0):
    """List of (BGR image, depth in millimetres with holes, pose); sizes are (width, height)."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(n):
        y, x = np.mgrid[: colour_size[1], : colour_size[0]]
        waves = [np.sin((x + k * y) / (5 + k) + rng.uniform(0, 6)) for k in range(3)]
        colour = (128 + 90 * np.stack(waves, -1)).astype(np.uint8)
        depth = rng.integers(400, 6000, (depth_size[1], depth_size[0])).astype(np.uint16)
        depth[: 2 + i % 5, :3] = 0
        pose = np.eye(4)
        pose[:3, 3] = rng.uniform(-2, 2, 3)
        frames.append((colour, depth, pose))
    return frames


def encode_colour(image):
    done, data = cv2.imencode('.jpg', image)
    assert done
    return data.tobytes()


def encode_depth(depth):
    return zlib.compress(depth.astype('<u2').tobytes())


def sens_header(
    num_frames,
    colour_size=(48, 36),
    depth_size=(24, 18),
    shift=1000.0,
    version=4,
    name=b'StructureSensor',
):
    matrices = np.array([INTRINSIC, np.eye(4), INTRINSIC, np.eye(4)], '<f4')
    return (
        struct.pack('<IQ', version, len(name))
        + name
        + matrices.tobytes()
        + struct.pack('<2i', JPEG, ZLIB)
        + struct.pack('<4If', *colour_size, *depth_size, shift)
        + struct.pack('<Q', num_frames)
    )


def sens_frame(colour, depth, pose, times=(0, 0)):
    return (
        np.asarray(pose, '<f4').tobytes()
        + struct.pack('<4Q', *times, len(colour), len(depth))
        + colour
        + depth
    )


def sens_bytes(frames, inertial=2, **header):
    """Content of a file of `frames`, see `make_frames`."""
    sizes = {}
    if frames:
        sizes['colour_size'] = frames[0][0].shape[1::-1]
        sizes['depth_size'] = frames[0][1].shape[1::-1]
    content = [sens_header(len(frames), **(sizes | header))]
    for i, (image, distance, pose) in enumerate(frames):
        times = (33_000 * i, 33_000 * i + 7)
        content.append(sens_frame(encode_colour(image), encode_depth(distance), pose, times))
    if inertial is not None:
        content.append(struct.pack('<Q', inertial) + bytes(128 * inertial))
    return b''.join(content)


def write_sens(path, frames, **options):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(sens_bytes(frames, **options))
    return path
