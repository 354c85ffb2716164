"""Any folder of colour and depth pairs."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmmask3d.conversion.converter import Converter, Plan
from mmmask3d.conversion.formats.source_image import read_colour
from mmmask3d.conversion.frame import Frame, store_depth
from mmmask3d.conversion.options import UNITS, above_zero, stored_per_metre
from mmmask3d.conversion.pairs import PairFinder
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.val_split import add_argument as add_val_argument
from mmmask3d.conversion.val_split import with_validation
from mmmask3d.datasets.confidence import sure_readings
from mmmask3d.datasets.depth_io import (
    FrameError,
    decode_colour,
    decode_depth,
    to_readings,
    zero_where_invalid,
)
from mmmask3d.datasets.orientation import orientation_hint
from mmmask3d.datasets.text_lists import index_fields

_RELATIVE = 'relative'
_LARGEST = 65.535  # metres, in 16 bits of mm
_SAMPLE = 8  # depth files looked at for the unit


class PairsConverter(Converter):
    """Reads a folder of colour and depth pairs; what the two converters of such folders share."""

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.val: float | None = args.val
        self.shown: bool = args.orientation == 'shown'
        self.pairs = PairFinder(args)
        self.min_confidence: float | None = args.min_confidence
        # A JPEG stays one; among others there may be PNG, which must not become lossy.
        jpeg = self.pairs.colour_suffixes() <= {'.jpg', '.jpeg'}
        self.suffixes = {'rgb': '.jpg' if jpeg else '.png', 'depth': '.png'}

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        PairFinder.add_arguments(parser)
        add_val_argument(parser)
        parser.add_argument(
            '--orientation',
            choices=['stored', 'shown'],
            default='stored',
            help='depth fits colour as its pixels are stored, or as its EXIF orientation (phones) '
            'has it shown, to which colour is then turned',
        )
        parser.add_argument(
            '--invalid',
            type=float,
            nargs='+',
            default=[],
            metavar='V',
            help='stored values that are no depth, in addition to NaN and infinity (and, of '
            'measured depth, 0 and negative values)',
        )
        parser.add_argument(
            '--depth-format',
            choices=['png', 'npy'],
            default='png',
            help='png: measured depth of 8 and 16 bits as it is, everything else as 16 bits of mm, '
            'predictions as 16 bits scaled frame by frame; npy: float32',
        )

    def options(self) -> dict:
        """See :class:`Converter`. The validation share is no content of a frame, so not here."""
        return {
            **self.pairs.options(),
            'min_confidence': self.min_confidence,
            'orientation': 'shown' if self.shown else 'stored',
        }

    def sure(
        self, folder: Path, locator: Sequence[str], valid: np.ndarray
    ) -> tuple[np.ndarray, float | None]:
        """Where readings are sure enough.

        Args:
            folder: The source.
            locator: Files of the frame: colour, depth and, where asked for, confidence.
            valid: (H, W) bool, where there is a reading.

        Returns:
            (H, W) bool, and the share of the readings that are not; None without a confidence map.

        Raises:
            FrameError: The map is damaged or of another size, or no reading is left.
        """
        if self.min_confidence is None or not valid.any():
            return valid, None
        path = folder / locator[2]
        sure = sure_readings(path.read_bytes(), str(path), valid, self.min_confidence)
        return sure, float(1 - np.count_nonzero(sure) / np.count_nonzero(valid))

    def sources(self) -> list[Path]:
        """The folder, as one."""
        for line in self.pairs.left_over():
            print(f'warning: {self.source}: {line}', file=sys.stderr)
        return [self.source]

    def plan(self, source: Path) -> Plan:
        return self.pairs.find()

    def splits(self, names: Mapping[str, str]) -> dict[str, list[str]]:
        """All frames, and with ``--val`` those to train on and to validate on."""
        return with_validation(names, self.val)

    def read_colour(self, path: Path) -> tuple[bytes | np.ndarray, tuple[int, int]]:
        """Read a colour file, see :func:`~mmmask3d.conversion.formats.source_image.read_colour`."""
        return read_colour(path, self.suffixes['rgb'], self.shown)


class FolderConverter(PairsConverter):
    """Convert any folder of colour and depth pairs, or write an index for it."""

    name = 'any_folder'
    title = 'Any folder'

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        self.invalid = (0.0, *sorted(set(args.invalid) - {0.0}))
        self.max_depth: float | None = args.max_depth
        self.in_place: bool = args.in_place
        self.out: Path = args.out
        changes = {
            '--size': args.size,
            '--depth-format': args.depth_format != 'png',
            '--orientation shown': self.shown,
            '--min-confidence (RGBDDataset applies it)': self.min_confidence is not None,
        }
        given = [option for option, changed in changes.items() if changed]
        if self.in_place and given:
            raise SourceError(f'--in-place leaves files as they are: no {", ".join(given)}.')
        sample = self._sample()
        if args.unit is None:
            raise SourceError(
                f'{self.source}: the unit of depth is not stated. '
                f'{self._what_units_would_mean(sample)} Give --unit.'
            )
        self.unit: float | str = args.unit
        # What the first file holds, all must: it decides how depth is stored and its scale.
        self.dtype = sample[0].dtype
        self.depth_kind = 'relative' if self.unit == _RELATIVE else 'metric'
        integer = self.dtype in (np.uint8, np.uint16)
        self.read_scale = 1.0
        if self.unit != _RELATIVE:
            self.read_scale = float(self.unit)
        elif integer:
            self.read_scale = float(np.iinfo(self.dtype).max)
        # 8- and 16-bit values are kept as they are; other types become mm, or float32.
        self.as_stored = self.in_place or (integer and args.depth_format == 'png')
        if self.as_stored:
            self.depth_scale = self.read_scale
        elif args.depth_format == 'npy' or self.unit == _RELATIVE:
            self.suffixes = {**self.suffixes, 'depth': '.npy'}
            self.depth_scale = 1.0
        if self.in_place:
            self.suffixes = {}

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            '--unit',
            type=_unit,
            metavar='{mm,cm,m,N,relative}',
            help='unit of the depth files; N stored units per metre; relative: without scale. '
            'Needed, as it is never guessed; without it, the values that were found are shown',
        )
        parser.add_argument(
            '--max-depth',
            type=above_zero,
            metavar='M',
            help='readings beyond are dropped, in metres (relative: after scaling)',
        )
        parser.add_argument(
            '--in-place',
            action='store_true',
            help='check the files and write an index of them, without copying',
        )

    def options(self) -> dict:
        return {
            **super().options(),
            'unit': self.unit,
            'type': str(self.dtype),
            'invalid': list(self.invalid),
            'max_depth': self.max_depth,
            'stored': 'in place' if self.in_place else self.suffixes['depth'],
        }

    # ---------------------------------------------------------------- unit

    def _sample(self) -> list[np.ndarray]:
        """Depth maps of some frames from all parts of the source."""
        sample, problems = [], []
        frames = self.pairs.find().frames
        for ref in frames[:: max(1, len(frames) // _SAMPLE)][:_SAMPLE]:
            try:
                sample.append(_read_depth(self.source / ref.locator[1]))
            except (FrameError, OSError) as error:
                problems.append(str(error))
        if not sample:
            raise SourceError(
                f'{self.source}: no depth file can be read. ' + '; '.join(problems[:3])
            )
        return sample

    def _what_units_would_mean(self, sample: Sequence[np.ndarray]) -> str:
        found = [to_readings(raw, 1.0, self.invalid) for raw in sample]
        readings = [depth[valid] for depth, valid in found if valid.any()]
        types = ', '.join(sorted({str(raw.dtype) for raw in sample}))
        if not readings:
            return f'{len(sample)} depth files of {types} hold no reading.'
        low, high = min(r.min() for r in readings), max(r.max() for r in readings)
        median = float(np.median([np.median(r) for r in readings]))
        units = {**UNITS, '5000': 5000.0}
        meaning = ', '.join(f'{unit}: {median / n:.3g} m' for unit, n in units.items())
        return (
            f'{len(sample)} depth files of {types} hold values from {low:g} to {high:g}, median '
            f'{median:g}, which would be {meaning}. Look it up.'
        )

    # ---------------------------------------------------------------- frames

    def read(self, opened: Path, locator: tuple[str, ...]) -> Frame:
        colour_path, depth_path = (opened / part for part in locator[:2])
        extra = dict(zip(('rgb', 'depth', 'confidence'), locator, strict=False))
        raw = _read_depth(depth_path)
        if raw.dtype != self.dtype:
            raise FrameError(
                f'{depth_path}: depth of {raw.dtype}, but {self.dtype} in the first file. Files of '
                f'different types have different units; convert them into separate folders.'
            )
        depth, valid = to_readings(
            raw, self.read_scale, self.invalid, 0.0, self.max_depth, self.depth_kind
        )
        sure, unsure = self.sure(opened, locator, valid)
        depth, valid = zero_where_invalid(depth, sure), sure
        if self.in_place:
            self._check_in_place(colour_path, depth_path, raw.shape, locator)
            # Measured, not stored: what a loader will read, in stored units.
            return Frame({'depth': (depth * np.float32(self.depth_scale))}, extra=extra)
        if self.as_stored:
            stored = np.where(valid, raw, np.zeros((), raw.dtype))
        elif self.suffixes['depth'] == '.npy':
            stored = depth
        else:
            if (depth[valid] > _LARGEST).any():
                raise FrameError(
                    f'{depth_path}: depth up to {depth[valid].max():g} m does not fit into 16 bits '
                    f'of mm. Give --max-depth, or keep it with --depth-format npy.'
                )
            stored = store_depth(depth, valid, self.depth_scale)
        images = {'rgb': self.read_colour(colour_path)[0], 'depth': stored}
        return Frame(images, extra=extra, unsure=unsure)

    def _check_in_place(
        self, colour: Path, depth: Path, shape: tuple[int, ...], locator: Sequence[str]
    ) -> None:
        content = colour.read_bytes()
        found = decode_colour(content, str(colour)).shape[:2]
        if found != shape:
            raise FrameError(
                f'{colour} is {found[0]}x{found[1]}, {depth} is {shape[0]}x{shape[1]} (height x '
                f'width), and RGBDDataset reads pairs of one size. Convert without --in-place.'
                + orientation_hint(content)
            )
        if index_fields('\t'.join(locator)) != list(locator):
            raise FrameError(
                f'{locator}: a name with a tab, # at its start or blanks at its ends cannot stand '
                f'in an index. Rename it, or convert without --in-place.'
            )

    # ---------------------------------------------------------------- index

    def index_line(self, name: str, extra: Mapping[str, Any]) -> str:
        """Name of the frame, or, in place, its two files."""
        return f'{extra["rgb"]}\t{extra["depth"]}' if self.in_place else name

    def dataset_settings(self) -> dict[str, Any]:
        settings = super().dataset_settings()
        if not self.in_place:
            return settings
        return {
            **settings,
            'data_root': os.path.abspath(self.source),
            'ann_file': os.path.abspath(self.out / 'splits/all.txt'),
            'data_prefix': {'img_path': '', 'depth_path': ''},
            'depth_invalid': list(self.invalid),
            'max_depth': self.max_depth,
        }


def _read_depth(path: Path) -> np.ndarray:
    return decode_depth(path.read_bytes(), str(path))


def _unit(text: str) -> float | str:
    return _RELATIVE if text.strip() == _RELATIVE else stored_per_metre(text)
