"""Options that several commands share, without the mm packages that read their values."""

import argparse
import os
import sys
from typing import Any


def weights_file(text: str) -> str:
    """Type of an option that names a file of weights to write."""
    if not text.endswith(('.pth', '.safetensors')):
        raise argparse.ArgumentTypeError(f'{text}: the suffix must be .pth or .safetensors')
    return text


def add_config_overrides(parser: Any) -> None:
    """Add ``--cfg-options``; its values are read by :func:`read_overrides`."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        type=_override,
        default=[],
        metavar='KEY=VALUE',
        help='override config entries, e.g. optim_wrapper.optimizer.lr=1e-4 model.x="[a,b]"',
    )


def _override(text: str) -> str:
    if '=' not in text:
        raise argparse.ArgumentTypeError(f'{text!r}: expected KEY=VALUE')
    return text


def read_overrides(pairs: list[str]) -> dict[str, Any]:
    """Read the values of ``--cfg-options`` as every tool of OpenMMLab does.

    Raises:
        SystemExit: A list or tuple is not closed.
    """
    from mmengine.config import DictAction

    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction, default={})
    try:
        return dict(parser.parse_args(['--cfg-options', *pairs]).cfg_options)
    except AssertionError as error:  # mmengine's way to say that brackets do not match
        sys.exit(f'error: --cfg-options {" ".join(pairs)}: {error}')


def add_launcher(parser: argparse.ArgumentParser) -> None:
    """Add ``--launcher``, and the rank that launchers may hand over."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torchrun and torch.distributed.launch spell it differently
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def export_local_rank(args: argparse.Namespace) -> None:
    """Hand the rank on to mmengine, which reads it from the environment."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
