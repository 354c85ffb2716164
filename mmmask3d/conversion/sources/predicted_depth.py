"""Colour frames and depth that a network predicted for them, as targets without scale."""

import argparse
from pathlib import Path

import numpy as np

from mmmask3d.conversion.frame import Frame, same_aspect
from mmmask3d.conversion.sources.folder import PairsConverter
from mmmask3d.datasets.depth_io import FrameError, decode_colour, decode_depth
from mmmask3d.datasets.image_header import declared_image
from mmmask3d.datasets.nearest import resize_nearest
from mmmask3d.datasets.orientation import orientation_hint

KINDS = ('depth', 'inverse')
_LARGEST = 65535
_OUTLIERS = 1, 99  # percentiles
_LEAST_SPREAD = 0.01  # of the range, between these


class PredictedDepthConverter(PairsConverter):
    """Convert colour frames and the depth a network predicted for them into relative targets."""

    name = 'predicted_depth'
    title = 'Predicted depth'
    depth_kind = 'relative'

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.kind: str = args.kind
        self.invalid = tuple(sorted(set(args.invalid)))
        self.max_value: float | None = args.max_value
        self.size: tuple[int, int] | None = tuple(args.size) if args.size else None
        self.as_png = args.depth_format == 'png'
        self.depth_scale = float(_LARGEST) if self.as_png else 1.0
        self.suffixes = {**self.suffixes, 'depth': '.png' if self.as_png else '.npy'}

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            '--kind',
            choices=KINDS,
            required=True,
            help='depth: larger is farther; inverse: larger is nearer, as MiDaS and Depth Anything '
            'give it',
        )
        parser.add_argument(
            '--max-value',
            type=float,
            metavar='V',
            help='stored values beyond are no prediction: a sky at 10000, for example',
        )

    def options(self) -> dict:
        return {
            **super().options(),
            'kind': self.kind,
            'invalid': list(self.invalid),
            'max_value': self.max_value,
            'stored': self.suffixes['depth'],
        }

    def read(self, opened: Path, locator: tuple[str, ...]) -> Frame:
        """Read a colour file and its prediction."""
        colour_path, depth_path = (opened / part for part in locator[:2])
        colour, colour_size = self.read_colour(colour_path)
        values = read_prediction(depth_path).astype(np.float64)
        if same_aspect(colour_size, values.shape) and not same_aspect(
            colour_size, values.shape[::-1]
        ):
            # cv2.imread turns what it gives to a network, so this is a prediction of that picture.
            hint = orientation_hint(colour_path.read_bytes())
            if hint:
                raise FrameError(f'{depth_path}: fits {colour_path} turned by 90 degrees.{hint}')
        valid = np.isfinite(values) & ~np.isin(values, self.invalid)
        if self.max_value is not None:
            valid &= values <= self.max_value
        valid, unsure = self.sure(opened, locator, valid)
        size = self.size or _common_size(colour_size, values.shape[::-1])
        if size != values.shape[::-1]:
            values, valid = resize_nearest(values, size), resize_nearest(valid, size)
        target, low, high = relative_target(values, valid, self.kind, str(depth_path))
        if self.as_png:
            stored = np.rint(target * _LARGEST).astype(np.uint16)
        else:
            stored = target.astype(np.float32)
        extra = {'rgb': locator[0], 'depth': locator[1], 'low': low, 'high': high}
        return Frame({'rgb': colour, 'depth': stored}, extra=extra, unsure=unsure)


def relative_target(
    values: np.ndarray, valid: np.ndarray, kind: str, where: str
) -> tuple[np.ndarray, float, float]:
    """Bring a prediction to (0, 1], the same way round for all kinds: larger is farther.

    Inverse depth ``x`` becomes ``high - x`` over the range of the frame, not ``1 / x``, as it is
    known up to a factor and an offset only (docs/datasets/predicted_depth.md).

    Args:
        values: (H, W) float64, the prediction; anything where ``valid`` is False.
        valid: (H, W) bool.
        kind: 'depth' or 'inverse'.
        where: The file, for messages.

    Returns:
        (H, W) float64 between 1 / 65535 and 1 (nearest and farthest pixel), 0 where not valid; and
        the range of the prediction that this stands for.

    Raises:
        FrameError: No valid value, a single one, or a few that are far off all others.
    """
    if not valid.any():
        raise FrameError(f'{where}: no value of the prediction is valid.')
    readings = values[valid]
    low, high = float(readings.min()), float(readings.max())
    with np.errstate(over='ignore'):
        span = np.float64(high) - low
    if not 0 < span < np.inf:
        raise FrameError(
            f'{where}: the prediction holds values from {low:g} to {high:g}, of which no relative '
            f'depth can be made.'
        )
    first, last = np.percentile(readings, _OUTLIERS)
    if last - first < _LEAST_SPREAD * span:
        raise FrameError(
            f'{where}: {_OUTLIERS[1] - _OUTLIERS[0]} % of the prediction lie between {first:g} and '
            f'{last:g}, but all of it between {low:g} and {high:g}: a few values would flatten all '
            f'others. Name them with --invalid or --max-value.'
        )
    farther = values - low if kind == 'depth' else high - values
    # 0 is "no reading" in every file of this project, so the nearest pixel is one step above.
    target = (1 + (_LARGEST - 1) * (farther / span)) / _LARGEST
    return np.where(valid, target, 0), low, high


def read_prediction(path: Path) -> np.ndarray:
    """Read a stored prediction, (H, W): as :func:`decode_depth`, and grey as 8-bit RGB PNG.

    Raises:
        FrameError: It cannot be read, or is a picture in false colours.
        OSError: It cannot be read at all.
    """
    content = path.read_bytes()
    found = declared_image(content)
    if found is None or (found.format, found.bits, found.kind) != ('PNG', 8, 'RGB'):
        return decode_depth(content, str(path))
    image = decode_colour(content, str(path))
    if (image != image[..., :1]).any():
        raise FrameError(
            f'{path}: a picture of depth in false colours, from which no order of values follows. '
            f'Save the prediction itself, as .npy or grey PNG.'
        )
    return image[..., 0]


def _common_size(colour: tuple[int, int], prediction: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of the output: nothing is enlarged, unless it was squeezed into a square.

    A prediction of another aspect ratio covers the same view.
    """
    smaller = prediction[0] * prediction[1] < colour[0] * colour[1]
    return prediction if smaller and same_aspect(colour, prediction) else colour
