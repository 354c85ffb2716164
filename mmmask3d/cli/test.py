"""Evaluates a checkpoint with the test settings of a config: any model of the OpenMMLab family."""

# ruff: noqa: E402
from mmmask3d.preflight import check_environment

check_environment()  # plain words before an import below fails

import argparse
import os

from mmengine.config import DictAction
from mmengine.evaluator import DumpResults
from mmengine.fileio import dump
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmmask3d.engine import run_config
from mmmask3d.setup_env import register_all_modules


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the config file')
    parser.add_argument('checkpoint', help='.pth or .safetensors file, or URL')
    parser.add_argument('--work-dir', help='folder for logs; ./work_dirs/<config name> by default')
    parser.add_argument(
        '--out',
        help='write the predictions to this .pkl file, or the metrics to this .json file',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override config entries: key=value pairs',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torchrun and torch.distributed.launch spell it differently
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    args = parser.parse_args(argv)
    if args.out and not args.out.endswith(('.pkl', '.pickle', '.json')):
        parser.error(f'--out {args.out}: expected a name that ends in .pkl, .pickle or .json')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def main() -> None:
    """Run the tool."""
    args = parse_args()
    cfg = run_config.load_config(args.config, args.work_dir, args.cfg_options, args.launcher)
    run_config.check_libraries(cfg)
    register_all_modules(init_default_scope=False)
    cfg.load_from, cfg.resume = args.checkpoint, False
    run_config.enable_cpu_processes(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    run_config.require_fitting_checkpoint(runner)
    if args.out and not args.out.endswith('.json'):
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    metrics = runner.test()
    if args.out and args.out.endswith('.json') and runner.rank == 0:
        dump(metrics, args.out)


if __name__ == '__main__':
    main()
