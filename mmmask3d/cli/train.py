"""Train from a config: pre-training, segmentation, detection, any model of OpenMMLab."""

import argparse
import os
import sys
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
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints; ./work_dirs/<config name> by default'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='continue an interrupted run: from PATH, or without PATH from the newest complete '
        'checkpoint in the work directory, if there is one',
    )
    parser.add_argument(
        '--amp',
        action='store_true',
        help='mixed precision, bfloat16 unless the config says otherwise',
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by actual batch size / auto_scale_lr.base_batch_size',
    )
    add_config_overrides(parser)
    add_launcher(parser)
    return parser.parse_args(argv)


@command(parse_args, tracebacks=True)
def main(args: argparse.Namespace) -> None:
    """Run the command."""
    export_local_rank(args)

    from mmengine.registry import RUNNERS
    from mmengine.runner import Runner

    from mmmask3d.engine import ResumedConfigHook, run_config

    def log(message: str) -> None:
        # the runner's logger does not exist yet; one voice is enough with several processes
        if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
            print(message, file=sys.stderr, flush=True)

    cfg = run_config.load_config(args.config, args.work_dir, args.cfg_options, args.launcher)
    run_config.check_libraries(cfg)
    if args.amp:
        run_config.enable_amp(cfg)
    run_config.check_amp(cfg)
    run_config.check_schedule(cfg)
    if args.auto_scale_lr:
        run_config.enable_auto_scale_lr(cfg)
    run_config.apply_resume(cfg, args.resume, log)
    run_config.enable_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.register_hook(ResumedConfigHook())
    if cfg.get('resume'):
        run_config.require_fitting_checkpoint(runner)
    else:
        run_config.require_some_weights(runner)
    runner.train()
