"""``mmmask3d COMMAND``: all commands under one name."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from mmmask3d.version import __version__

#: Command, and the module in this package that holds it.
COMMANDS = {
    'train': 'train',
    'test': 'test',
    'swap': 'swap',
    'check': 'check',
    'browse': 'browse',
    'convert': 'convert',
    'pack': 'pack',
    'reconstruct': 'reconstruct',
    'extract': 'extract',
    'interpolate': 'interpolate',
    'convert-weights': 'convert_weights',
    'publish': 'publish',
    'export-onnx': 'export_onnx',
    'report': 'report',
    'demo': 'demo',
}


def list_commands() -> str:
    """A line for each command: its name and the first line of its module."""
    lines = []
    for name, module in COMMANDS.items():
        summary = (import_module(f'mmmask3d.cli.{module}').__doc__ or '').splitlines()[0]
        lines.append(f'  {name:<16} {summary}')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that is named first; the exit code is the command's."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in COMMANDS:
        command = import_module(f'mmmask3d.cli.{COMMANDS[argv[0]]}')
        return int(command.main(argv[1:], prog=f'mmmask3d {argv[0]}'))
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
