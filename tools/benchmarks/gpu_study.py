"""Compares ways to continue or train an encoder, at real size, in minutes on one GPU.

    mkdir study && ln -s $PWD/data/nyuv2/{rgb,depth,label40,splits} study
    mmmask3d pack pack study study.lmdb
    python tools/benchmarks/gpu_study.py --data study.lmdb --weights dinov2_small.safetensors \
        --work-dir work_dirs/gpu_study --out study.json

Each method of `METHODS` trains every layer with each seed, on the frames of --frames, and becomes
an encoder file. --labels fine-tunes each of these, and one report card is made of all of them,
with the frames of both configs. Methods start from the backbone of --frames, with its weights, or
from a small ViT without any. Both configs read the packed data in place of their `data_root`.

The same call goes on where the last one stopped, also within a training; with other settings it
works in another folder. After --minutes no new stage is started. Everything found is in one JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmmask3d.cli.options import add_config_overrides, read_overrides
from mmmask3d.cli.start import start

if TYPE_CHECKING:
    from mmengine.config import Config
    from mmengine.runner import Runner

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SCRATCH = dict(type='mmmask3d.Mask3DViT', arch='deit-small', patch_size=16)
"""The ViT of the methods that start without weights."""

ANCHOR = {'model.anchor': dict(type='FeatureAnchor', weight=5.0)}
RGB_TO_DEPTH = {'masking.rgb_ratio': 0.0, 'masking.depth_ratio': 1.0, 'model.depth_encoder': None}
CONTROL = {'model.heads.depth.loss_weight': 0.0}
MAE, TEACHER = {'mae': True}, {'teacher': True}
METHODS: dict[str, dict[str, dict[str, Any] | None]] = {
    'weights': {
        'untouched': None,
        'anchor-alone': {**ANCHOR, **CONTROL},
        'mae-anchored': {**ANCHOR, **MAE},
        'rgb2depth': RGB_TO_DEPTH,
        'rgb2depth-anchored': {**ANCHOR, **RGB_TO_DEPTH},
        'mask3d': {},
        'mask3d-anchored': ANCHOR,
    },
    'scratch': {
        'untouched': None,
        'mae': MAE,
        'mask3d': {},
        'rgb2depth': RGB_TO_DEPTH,
        'mask3d-distilled': TEACHER,
    },
}
"""Config overrides by start and method; None trains nothing. `mae` replaces the target by RGB and
`teacher` anchors to the backbone of --frames."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--data', type=Path, required=True, help='packed frames, or their folder')
    parser.add_argument(
        '--weights', type=Path,
        help='encoder file for the backbone of --frames; without it, the weights its config names',
    )  # fmt: skip
    parser.add_argument(
        '--frames', type=Path, help='pre-training config',
        default=CONFIGS / 'mask3d/mask3d_dinov2-small_2xb64-amp-400e_nyuv2-240x320.py',
    )  # fmt: skip
    parser.add_argument(
        '--labels', type=Path, help='segmentation config of the same encoder',
        default=CONFIGS / 'segmentation/dinov2-small_upernet_nyuv2-40-240x320.py',
    )  # fmt: skip
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--epochs', type=int, default=20, help='of every pre-training')
    parser.add_argument('--finetune-epochs', type=int, default=10)
    parser.add_argument('--minutes', type=float, default=10, help='after which no stage is started')
    parser.add_argument('--work-dir', type=Path, required=True, help='folder for everything')
    parser.add_argument('--out', type=Path, required=True, help='the JSON')
    add_config_overrides(parser)
    return parser.parse_args(argv)


class Study:
    """The stages, each done once and remembered in a file of its own.

    Args:
        args: the command line.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.overrides = read_overrides(args.cfg_options)
        self.begun = time.monotonic()
        self.left: list[str] = []
        self.settings = {k: str(v) for k, v in vars(args).items() if k not in ('minutes', 'out')}
        digest = hashlib.sha256(json.dumps(self.settings).encode()).hexdigest()
        self.folder = args.work_dir / digest[:8]
        self.root = args.data if args.data.is_dir() else self.folder / 'data'

    def stage(self, name: str, run: Callable[[], Any]) -> Any:
        """What a stage found, now or in an earlier call; None where time is up."""
        from mmmask3d.atomic_file import write_file

        record = self.folder / f'{name.replace("/", "-")}.json'
        if record.exists():
            return json.loads(record.read_text())
        if time.monotonic() - self.begun > 60 * self.args.minutes:
            self.left.append(name)
            return None
        print(f'{name} ...', flush=True)
        found = run()
        write_file(record, json.dumps(found).encode())
        return found

    def config(self, path: Path, folder: Path, options: dict[str, Any]) -> Config:
        """A config on the data of the study."""
        from mmmask3d.config_files import nested_dicts
        from mmmask3d.engine.run_config import load_config

        cfg = load_config(str(path), str(folder), {**options, **self.overrides})
        for entry in nested_dicts(cfg._cfg_dict):
            if 'data_root' in entry:
                entry['data_root'] = str(self.root)
        return cfg

    def backbone(self, begin: str, cfg: Config, encoder: str | None = None) -> dict:
        """Config of the encoder that a method starts from; with the weights of a file if given."""
        own = dict(cfg.model.backbone)
        if begin == 'scratch':
            own = dict(SCRATCH, img_size=own['img_size'])
        elif self.args.weights and not encoder:
            encoder = str(self.args.weights)
        if encoder:
            own.pop('pretrained', None)
            own['init_cfg'] = dict(type='Pretrained', checkpoint=encoder)
        return own

    def pretraining(self, begin: str, method: str, seed: int) -> Config:
        """Config of a method."""
        from mmengine.config import Config

        changes = dict(METHODS[begin][method] or {})
        mae, teacher = (changes.pop(key, False) for key in ('mae', 'teacher'))
        epochs = {'train_cfg.max_epochs': self.args.epochs, 'randomness.seed': seed}
        folder = self.folder / f'{begin}-{method}-{seed}'
        cfg = self.config(self.args.frames, folder, {**epochs, **changes})
        cfg.custom_hooks = cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
        cfg.default_hooks.checkpoint.update(interval=5, max_keep_ckpts=1)
        for scheduler in cfg.param_scheduler:  # a warm-up in proportion
            for key in scheduler.keys() & {'begin', 'end'}:
                scheduler[key] = min(scheduler[key], max(1, self.args.epochs // 10))
        if mae:
            control = Config.fromfile(CONFIGS / '_base_/mae.py')
            control.mae_model.decoders.rgb = dict(cfg.model.decoders.depth, type='RGBDecoder')
            cfg.merge_from_dict(dict(model=control.mae_model, masking=control.mae_masking))
        if teacher:
            cfg.model.anchor = dict(type='FeatureAnchor', teacher=self.backbone('weights', cfg))
        cfg.model.backbone = self.backbone(begin, cfg)
        if begin == 'scratch':  # the rate of --frames is that of weights, a fifth
            cfg.optim_wrapper.optimizer.lr *= 5
        return cfg

    def pretrain(self, begin: str, method: str, seed: int) -> dict[str, Any]:
        """Train, and write the encoder."""
        import torch

        from mmmask3d.weights.extraction import extract

        cfg = self.pretraining(begin, method, seed)
        runner, started = _runner(cfg), time.monotonic()
        if METHODS[begin][method] is None:
            runner.model.init_weights()
            files = dict(save_optimizer=False, save_param_scheduler=False)
            runner.save_checkpoint(cfg.work_dir, 'untouched.pth', **files)
        else:
            runner.train()
        seconds = round(time.monotonic() - started, 1)
        (last,) = Path(cfg.work_dir).glob('*.pth')
        extract(str(last), f'{cfg.work_dir}.pth', None, None)
        peak = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
        return dict(
            encoder=f'{cfg.work_dir}.pth',
            seconds=seconds,
            iterations=runner.iter,
            peak_memory=peak,
        )

    def finetune(self, begin: str, method: str, seed: int, encoder: str) -> dict[str, float]:
        """Figures of the segmentation config from an encoder."""
        folder = self.folder / f'{begin}-{method}-{seed}-finetuned'
        options = {'train_cfg.max_epochs': self.args.finetune_epochs, 'randomness.seed': seed}
        cfg = self.config(self.args.labels, folder, options)
        maps = {k: v for k, v in cfg.model.backbone.items() if k in ('out_indices', 'out_type')}
        cfg.model.backbone = {**self.backbone(begin, cfg, encoder), **maps}
        cfg.train_cfg.val_interval = self.args.finetune_epochs + 1
        runner = _runner(cfg)
        runner.train()
        return {k: float(v) for k, v in runner.val_loop.run().items()}

    def report(self, encoders: dict[str, list[str]]) -> dict[str, Any]:
        """The report card of all encoders."""
        import torch

        from mmmask3d.apis.report_card import ReportOptions, report_encoders

        paths = self.args.labels, self.args.frames
        configs = [self.config(path, self.folder, {}) for path in paths]
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        options = ReportOptions(('labels', 'depth', 'normals'), pictures=0, device=device)
        return report_encoders(configs, encoders, options).results

    def run(self) -> dict[str, Any]:
        """All stages that time allows."""
        from mmmask3d.conversion.packing import unpack

        if self.root != self.args.data:
            self.stage('unpacked', lambda: unpack(self.args.data, self.root))
        trained: dict[str, list[dict[str, Any]]] = {}
        finetuned: dict[str, list[dict[str, float]]] = {}
        plan = [(b, m, s) for s in self.args.seeds for b, found in METHODS.items() for m in found]
        for of in plan:
            begin, method, seed = of
            one = self.stage(f'{begin}/{method}/{seed}', partial(self.pretrain, *of))
            if one is None:
                continue
            trained.setdefault(f'{begin}/{method}', []).append(one)
            figures = self.stage(
                f'{begin}/{method}/{seed}/finetuned',
                partial(self.finetune, *of, one['encoder']),
            )
            if figures is not None:
                finetuned.setdefault(f'{begin}/{method}', []).append(figures)
        encoders = {name: [one['encoder'] for one in runs] for name, runs in trained.items()}
        card = None if self.left else self.stage('report', lambda: self.report(encoders))
        return dict(trained=trained, finetuned=finetuned, report=card, left=self.left)


def _runner(cfg: Config) -> Runner:
    """A runner that goes on from its last checkpoint."""
    from mmengine.runner import Runner

    from mmmask3d.engine.run_config import apply_resume

    apply_resume(cfg, 'auto', print)
    cfg.experiment_name = Path(cfg.work_dir).name
    return Runner.from_cfg(cfg)


def main(argv: list[str] | None = None) -> int:
    """Run what is left; 0 when every stage is done."""
    args = parse_args(argv)
    start()

    import torch

    from mmmask3d.atomic_file import write_file

    try:
        study = Study(args)
        found = study.run()
    except (OSError, ValueError, RuntimeError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    about = dict(gpu=gpu, torch=torch.__version__, settings=study.settings)
    write_file(args.out, (json.dumps({**about, **found}, indent=2) + '\n').encode())
    print(f'{args.out}: {len(study.left)} stages are left; the same call goes on.')
    return 1 if study.left else 0


if __name__ == '__main__':
    sys.exit(main())
