"""Trains any model of the OpenMMLab family from a config: pre-training, segmentation, detection."""

# ruff: noqa: E402
from mmmask3d.preflight import check_environment

check_environment()  # plain words before an import below fails

import argparse
import os
import sys

from mmengine.config import DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmmask3d.engine import ResumedConfigHook, run_config
from mmmask3d.engine.dependent_options import check_schedule
from mmmask3d.setup_env import register_all_modules


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the config file')
    parser.add_argument(
        '--work-dir', help='folder for logs and checkpoints; ./work_dirs/<config name> by default'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='PATH',
        help='go on with an interrupted run: from PATH, or without PATH from the newest complete '
        'checkpoint in the work directory, if there is one',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision, bfloat16 unless the config says else'
    )
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by actual batch size / auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config entries: key=value pairs, e.g. optim_wrapper.optimizer.lr=1e-4 '
        'model.x="[a,b]"',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torchrun and torch.distributed.launch spell it differently
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    """Run the tool."""
    args = parse_args()

    def log(message: str) -> None:
        # the runner's logger does not exist yet; one voice is enough with several processes
        if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
            print(message, file=sys.stderr, flush=True)

    cfg = run_config.load_config(args.config, args.work_dir, args.cfg_options, args.launcher)
    run_config.check_libraries(cfg)
    check_schedule(cfg)
    register_all_modules(init_default_scope=False)
    if args.amp:
        run_config.enable_amp(cfg)
    run_config.check_amp(cfg, log)
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


if __name__ == '__main__':
    main()
