"""Pack a data set into one LMDB file, for network file systems; unpack or check one.

    mmmask3d pack pack data/my_frames data/my_frames.lmdb
    mmmask3d pack check data/my_frames.lmdb
    mmmask3d pack unpack data/my_frames.lmdb data/unpacked

All files of the folder are packed byte for byte (index files and annotations too; hidden ones are
left out), each with a checksum. A config reads the packed files when `backend_args` is set in the
data set and its loaders; its paths stay as they are:

    backend_args = dict(backend='packed_lmdb', db_path='data/my_frames.lmdb',
                        data_root='data/my_frames')
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mmmask3d.cli.start import command
from mmmask3d.conversion.options import at_least_one


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog=prog, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', required=True)
    command = commands.add_parser('pack', help='folder to database')
    command.add_argument('folder', type=Path)
    command.add_argument('database', type=Path, help='new file')
    command.add_argument('--workers', type=at_least_one, default=4, help='threads that read files')
    command = commands.add_parser('unpack', help='database to folder')
    command.add_argument('database', type=Path)
    command.add_argument('folder', type=Path, help='new or empty')
    command = commands.add_parser('check', help='verify all checksums')
    command.add_argument('database', type=Path)
    return parser.parse_args(argv)


@command(parse_args)
def main(args: argparse.Namespace) -> int:
    """Entry point."""
    from mmmask3d.conversion.packing import check, pack, unpack

    try:
        if args.command == 'pack':
            manifest = pack(args.folder, args.database, args.workers)
        elif args.command == 'unpack':
            manifest = unpack(args.database, args.folder)
        else:
            manifest = check(args.database)
    except ImportError:
        print('error: the package lmdb is not installed: pip install lmdb', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted; nothing is left', file=sys.stderr)
        return 130
    done = dict(pack='packed', unpack='unpacked', check='verified')[args.command]
    print(f'{manifest["files"]} files, {manifest["bytes"] / 2**20:.1f} MiB {done}')
    return 0
