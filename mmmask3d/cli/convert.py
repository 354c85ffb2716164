"""Convert a data set as distributed to the layout that this project reads."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

#: What can be converted: the converter, and what it reads.
SOURCES = {
    'rooms': ('rooms.converter.RoomsConverter', 'nothing: generates frames of furnished rooms'),
    'folder': ('sources.folder.FolderConverter', 'any folder of colour and depth pairs'),
    'predicted-depth': (
        'sources.predicted_depth.PredictedDepthConverter',
        'frames with predicted depth',
    ),
    'nyuv2': ('sources.nyuv2.NYUv2Converter', 'NYU Depth v2, labelled frames'),
    'scannet': ('sources.scannet.ScanNetConverter', 'ScanNet, .sens streams or scannet_frames_25k'),
    'sunrgbd': ('sources.sunrgbd.SUNRGBDConverter', 'SUN RGB-D'),
    'cityscapes': ('sources.cityscapes.CityscapesConverter', 'Cityscapes with disparity'),
    'seven-scenes': ('sources.seven_scenes.SevenScenesConverter', '7-Scenes'),
    'tum': ('sources.tum.TUMConverter', 'TUM RGB-D'),
}


def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run the converter that is named first."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in SOURCES:
        return convert(argv[0], argv[1:], f'{prog or "convert"} {argv[0]}')
    listed = '\n'.join(f'  {name:<16} {reads}' for name, (_, reads) in SOURCES.items())
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f'{prog or "convert"} [-h] SOURCE ...',
        description=(__doc__ or '').splitlines()[0],
        epilog=f'sources:\n{listed}\n\nSOURCE --help describes its options.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('source', metavar='SOURCE', choices=SOURCES, help='see below')
    parser.parse_args(argv[:1])
    raise AssertionError('a source that the parser takes has been converted above')


def convert(source: str, argv: Sequence[str] | None = None, prog: str | None = None) -> int:
    """Run one converter; the scripts in ``tools/dataset_converters`` call it.

    Args:
        source: A key of :data:`SOURCES`.
        argv: Its arguments; those of the process by default.
        prog: Name of the command in its help.
    """
    from mmmask3d.conversion.command_line import run

    module, _, name = SOURCES[source][0].rpartition('.')
    converter = getattr(import_module(f'mmmask3d.conversion.{module}'), name)
    return run(converter, argv, prog)
