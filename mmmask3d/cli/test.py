"""Evaluate a checkpoint with the test settings of a config."""

import argparse
from collections.abc import Sequence

from mmmask3d.cli.options import (
    add_config_overrides,
    add_launcher,
    export_local_rank,
)
from mmmask3d.cli.start import command


def parse_args(argv: Sequence[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog=prog, description=__doc__)
    parser.add_argument('config', help='path of the config file')
    parser.add_argument('checkpoint', help='.pth or .safetensors file, or URL')
    parser.add_argument('--work-dir', help='folder for logs; ./work_dirs/<config name> by default')
    parser.add_argument(
        '--out',
        help='write the predictions to this .pkl file, or the metrics to this .json file',
    )
    add_config_overrides(parser)
    add_launcher(parser)
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith(('.pkl', '.pickle', '.json')):
        parser.error(f'--out {args.out}: expected a name that ends in .pkl, .pickle or .json')
    return args


@command(parse_args, tracebacks=True)
def main(args: argparse.Namespace) -> None:
    """Run the command."""
    export_local_rank(args)

    from mmengine.evaluator import DumpResults
    from mmengine.fileio import dump
    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from mmmask3d.engine import run_config

    cfg = run_config.load_config(args.config, args.work_dir, args.cfg_options, args.launcher)
    run_config.check_libraries(cfg)
    cfg.load_from, cfg.resume = args.checkpoint, False
    run_config.enable_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    run_config.require_fitting_checkpoint(runner)
    if args.out and not args.out.endswith('.json'):
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out and args.out.endswith('.json') and runner.rank == 0:
        dump(metrics, args.out)
