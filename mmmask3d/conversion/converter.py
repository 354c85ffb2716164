"""The interface of a converter: what differs between data sets."""

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmmask3d.conversion.coco import SMALLEST_INSTANCE
from mmmask3d.conversion.frame import Frame


@dataclass(frozen=True)
class FrameRef:
    """A frame that can be read.

    Attributes:
        name: Stem of the output files, '/' between folders, see
            :func:`~mmmask3d.conversion.paths.safe_name`.
        locator: What :meth:`Converter.read` needs to find it; picklable.
        split: Name of the split it belongs to; '' for none, which is listed in ``all`` only.
    """

    name: str
    locator: Any
    split: str = ''


@dataclass
class Plan:
    """The frames of one source, and what is wrong with it.

    Attributes:
        frames: Frames that can be read.
        problems: Parts that cannot, each a message that names the file (and offset).
    """

    frames: list[FrameRef] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Converter:
    """Reads one data set as distributed.

    A converter is pickled to the worker processes, so it holds options and small tables, no open
    files. :meth:`sources` runs once, :meth:`plan` once per source, and then, for chunks of a
    source's frames, :meth:`open` once and :meth:`read` per frame, all of these in workers.

    Damage is reported as :class:`~mmmask3d.datasets.depth_io.FrameError` (one frame) or
    :class:`~mmmask3d.conversion.paths.SourceError` (a source); ``OSError`` of a source file counts
    as damage of that frame. Any other exception is a programming error and stops the run.

    Args:
        args: The parsed command line: what :meth:`add_folders` and :meth:`add_arguments` added.
    """

    #: Name in the manifest, and of the script.
    name: str = ''
    #: Name of the data set in texts.
    title: str = ''
    #: Kinds of images and how their files end; colour is ``rgb``, depth is ``depth``.
    #: Images of a frame that are not named here are measured for the manifest and not stored.
    suffixes: Mapping[str, str] = {'rgb': '.jpg', 'depth': '.png'}
    #: Output folders of kinds that are not named like their kind.
    folders: Mapping[str, str] = {}
    #: Stored units of depth per metre (relative depth: the stored value of 1.0).
    depth_scale: float = 1000.0
    #: 'metric' or 'relative'.
    depth_kind: str = 'metric'
    #: Classes of each label folder, in the order of their ids.
    classes: Mapping[str, Sequence[str]] = {}
    #: Id of the first class in label folders where it is not 1.
    first_ids: Mapping[str, int] = {}
    #: Id of unlabelled pixels in label folders where it is not 0.
    ignore_ids: Mapping[str, int] = {}
    #: COCO categories by id; empty for data sets without instances.
    categories: Mapping[int, str] = {}
    #: (width, height) of the output where ``--size`` is not given; None for that of the source.
    default_size: tuple[int, int] | None = None
    #: Instances of fewer pixels are not annotated.
    smallest_instance: int = SMALLEST_INSTANCE

    #: Options of :meth:`add_arguments` that decide the content of the output.
    content_options: Sequence[str] = ()

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.source: Path = args.source

    @classmethod
    def add_arguments(cls, parser: argparse._ActionsContainer) -> None:
        """Add the options of this data set to those that all converters share."""

    @classmethod
    def add_folders(cls, parser: argparse.ArgumentParser) -> None:
        """Add the arguments that name what is read and written: ``source`` and ``out``."""
        parser.add_argument('source', type=Path, help='the data set as distributed')
        parser.add_argument(
            'out', type=Path, help='folder to fill: new, empty, or interrupted before'
        )

    def options(self) -> dict:
        """Options that decide the content of the output, as JSON, for the manifest.

        A folder converted with other options is not added to.
        """
        return {name: getattr(self.args, name) for name in self.content_options}

    def sources(self) -> Sequence[Any]:
        """What is read independently: scenes, archives, or the data set as one; picklable."""
        raise NotImplementedError

    def plan(self, source: Any) -> Plan:
        """Find the frames of a source without decoding them."""
        raise NotImplementedError

    def open(self, source: Any) -> AbstractContextManager[Any]:
        """Open a source for reading some of its frames; by default the source itself."""
        return nullcontext(source)

    def read(self, opened: Any, locator: Any) -> Frame:
        """Read one frame."""
        raise NotImplementedError

    def splits(self, names: Mapping[str, str]) -> dict[str, list[str]]:
        """Frames of each split file, sorted as they are to be listed.

        Args:
            names: Split of each converted frame by its name, sorted by name.
        """
        found: dict[str, list[str]] = {'all': list(names)}
        for name, split in names.items():
            if split:
                found.setdefault(split, []).append(name)
        return found

    def index_line(self, name: str, extra: Mapping[str, Any]) -> str:
        """Line of a split file.

        Args:
            name: Of the frame.
            extra: Its :attr:`~mmmask3d.conversion.frame.Frame.extra`.
        """
        return name

    def dataset_settings(self) -> dict[str, Any]:
        """Arguments of ``RGBDDataset`` that read the output, without ``data_root``; as JSON."""
        kinds = {'img': 'rgb', 'depth': 'depth'}
        prefix = {f'{key}_path': self.folders.get(kind, kind) for key, kind in kinds.items()}
        return {
            # not what a folder holds: frames that have gone from the source are left in it
            'ann_file': 'splits/all.txt',
            **({'data_prefix': prefix} if self.folders else {}),
            **{f'{k}_suffix': self.suffixes[v] for k, v in kinds.items() if v in self.suffixes},
            'depth_scale': self.depth_scale,
            'depth_kind': self.depth_kind,
        }

    def annotation_file(self, split: str) -> tuple[str, str]:
        """Where the COCO file of a split goes.

        Returns:
            Its path in the output, and the folder below that of the colour images to which the
            file names in it are relative ('' for the folder itself).
        """
        return f'annotations/instances_{split}.json', ''

    def extra_files(self, names: Mapping[str, str]) -> dict[str, bytes]:
        """Further files of the output, by relative path: low-label lists, for example.

        Args:
            names: Split of each converted frame by its name, sorted by name.
        """
        return {}


def json_file(content: dict) -> bytes:
    """Content of a JSON file that people read too, for :meth:`Converter.extra_files`."""
    return (json.dumps(content, indent=1) + '\n').encode()
