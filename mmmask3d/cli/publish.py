"""Publish weights: strip what is not weights, put the hash in the name, write a model card.

    mmmask3d publish work_dirs/run/epoch_100.pth zoo/mask3d_vit-tiny_mine \
        --data-license 'own frames, released under CC BY 4.0' --terms 'Apache-2.0'

Writes ``zoo/mask3d_vit-tiny_mine-<hash>.safetensors`` with a ``.json`` and a ``.md`` next to it.
``--hub owner/name`` uploads the three to the Hugging Face hub.
Weights that were trained on frames for research only are refused.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mmmask3d.cli.start import command


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.splitlines()[0])
    parser.add_argument('source', help='checkpoint of a run, or an extracted encoder or adapter')
    parser.add_argument('prefix', help='folder and name of the model; hash and suffix are added')
    parser.add_argument(
        '--data-license', required=True, help='terms under which the training frames were used'
    )
    parser.add_argument('--terms', required=True, help='terms of the weights')
    parser.add_argument('--init-license', help='terms of the weights the training started from')
    parser.add_argument('--part', choices=('encoder', 'model'), default='encoder')
    parser.add_argument('--dtype', choices=('float32', 'float16'), default='float32')
    parser.add_argument('--config', help='config of the run; default: the text in the checkpoint')
    parser.add_argument('--metrics', help='figures, as mmmask3d test --out writes them (.json)')
    parser.add_argument('--made-by', help='command that reproduces these weights, for the card')
    parser.add_argument('--hub', metavar='OWNER/NAME', help='upload to the Hugging Face hub, too')
    parser.add_argument('--report', help='write names and hash of the files to this .json')
    return parser.parse_args(argv)


@command(parse_args)
def main(args: argparse.Namespace) -> None:
    """Run the command; 0 when the files were written and verified."""
    from mmmask3d.atomic_file import write_file
    from mmmask3d.checkpoints.hub import check_repository
    from mmmask3d.config_files import read_config_file
    from mmmask3d.weights.publishing import publish, upload

    if args.hub:
        check_repository(args.hub)
    config = read_config_file(args.config).to_dict() if args.config else None
    metrics = json.loads(Path(args.metrics).read_text()) if args.metrics else None
    written = publish(
        args.source, args.prefix, args.data_license, args.terms, args.part, args.dtype, config,
        metrics, args.init_license, args.made_by,
    )  # fmt: skip
    if args.report:
        write_file(args.report, json.dumps(written, indent=1).encode())
    if args.hub:
        written['hub'] = upload(written, args.hub)
    print('\n'.join(f'{key}: {value}' for key, value in written.items()))
