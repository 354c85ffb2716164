"""``mmmask3d COMMAND``: all commands under one name."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from mmmask3d.version import __version__

#: Commands; each is held by the module of its name in this package.
COMMANDS = (
    'train', 'test', 'swap', 'check', 'browse', 'convert', 'pack', 'reconstruct', 'extract',
    'interpolate', 'convert-weights', 'publish', 'export-onnx', 'report', 'demo',
)  # fmt: skip


def _module(command: str) -> ModuleType:
    return import_module(f'mmmask3d.cli.{command.replace("-", "_")}')


def list_commands() -> str:
    """A line for each command: its name and the first line of its module."""
    return '\n'.join(f'  {c:<16} {(_module(c).__doc__ or "").splitlines()[0]}' for c in COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that is named first; the exit code is the command's."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in COMMANDS:
        return int(_module(argv[0]).main(argv[1:], prog=f'mmmask3d {argv[0]}'))
    parser = argparse.ArgumentParser(
        prog='mmmask3d',
        usage='mmmask3d [-h] [--version] COMMAND ...',
        description='Masked RGB-D pre-training for OpenMMLab.',
        epilog=f'commands:\n{list_commands()}\n\nmmmask3d COMMAND --help describes a command.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('--version', action='version', version=f'mmmask3d {__version__}')
    parser.add_argument('command', metavar='COMMAND', choices=COMMANDS, help='see below')
    parser.parse_args(argv[:1])
    raise AssertionError('a command that the parser takes has been run above')
