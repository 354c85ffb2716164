"""Compares backbones, or pre-trainers, in speed and memory, as ratios to one of them.

    python tools/benchmarks/backbone_speed.py --arch deit-tiny --size 512 512
    python tools/benchmarks/backbone_speed.py --vitdet mmdetection/projects/ViTDet
    python tools/benchmarks/backbone_speed.py --arch base --size 224 224 --batch 4 \
        --models mask3d mask3d-heavy mae multimae --reference mask3d --multimae MultiMAE

All run on the same random images with random weights. One step is a forward pass without
gradients (`inference`), or a forward and a backward pass of the mean of all maps (`training`; the
optimizer is left out). Rounds are interleaved: each runs every backbone once, and a ratio is formed
within a round, so that a machine that slows down does not favour one. Time is the process's CPU
time on a CPU, where other processes then matter little, and wall-clock time on a GPU.

Peak memory is what one step takes beyond the loaded backbone, each in a process of its own: the
resident set on a CPU (Linux only), allocated memory on a GPU. The gradients of the weights count.
"""

from __future__ import annotations

import argparse
import importlib
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mmmask3d.cli.start import start

if TYPE_CHECKING:
    from torch import Tensor, nn


PRETRAINING_SIZE = 224  # of the stored position embedding, resampled in every forward pass
WINDOW = 14
REFERENCE = 'mmpretrain-vit'
VITDET = ('vitdet', 'vitdet-norelpos')
MODES = ('inference', 'training')
PRETRAINERS = ('mask3d', 'mask3d-heavy', 'mae', 'multimae')
BASE_MODELS = Path(__file__).resolve().parents[2] / 'configs/_base_/models'
ARCHITECTURES = ('deit-tiny', 'deit-small', 'base', 'large')


def _vit(kind: str, **options) -> Callable[[argparse.Namespace], dict]:
    """Config of a ViT of a registered class."""
    return lambda args: dict(type=kind, arch=args.arch, img_size=PRETRAINING_SIZE, **options)


def _timm(args: argparse.Namespace) -> dict:
    name = f'vit_{args.arch.removeprefix("deit-")}_patch16_224'
    return dict(type='mmmask3d.TimmViT', model=name, img_size=tuple(args.size))


def _timm_own(args: argparse.Namespace) -> nn.Module:
    encoder = build_config(_timm(args))
    encoder.forward = encoder.trunk.forward_features
    return encoder


def _timm_masked(args: argparse.Namespace) -> nn.Module:
    """The tokens of every fifth patch, as in masked pre-training."""
    import torch

    encoder = build_config(_timm(args))
    rows, columns = encoder.grid_size
    ids = torch.arange(0, rows * columns, 5, device=args.device).expand(args.batch, -1)
    encoder.forward = partial(encoder.forward, keep_ids=ids)
    return encoder


def _clone(args: argparse.Namespace, option: str) -> Path:
    """A clone of others' code, put on Python's path."""
    path = getattr(args, option)
    if path is None or not (path / option).is_dir():
        raise SystemExit(
            f'--models: {option} needs --{option}, the path of a clone with the folder {option}/ '
            f'in it; got {path}.'
        )
    if str(path) not in sys.path:
        sys.path.insert(0, str(path))
    return path


def _vitdet(args: argparse.Namespace, use_rel_pos: bool) -> nn.Module:
    """mmdet's ViTDet transformer of the same size, with the settings of its own configs."""
    from mmpretrain.models import VisionTransformer

    _clone(args, 'vitdet')
    arch = VisionTransformer.arch_zoo[args.arch]
    return importlib.import_module('vitdet').ViT(
        img_size=max(args.size),  # of its relative positions
        pretrain_img_size=PRETRAINING_SIZE,
        embed_dim=arch['embed_dims'],
        depth=arch['num_layers'],
        num_heads=arch['num_heads'],
        mlp_ratio=arch['feedforward_channels'] / arch['embed_dims'],
        window_size=WINDOW,
        window_block_indexes=[i for i in range(arch['num_layers']) if (i + 1) % 3],
        use_rel_pos=use_rel_pos,
    )


def _mask3d(args: argparse.Namespace, **decoder) -> nn.Module:
    """The pre-trainer of the base config of this size, with a fifth of the patches kept."""
    import torch
    from mmengine.config import Config

    cfg = Config.fromfile(BASE_MODELS / f'mask3d_vit-{args.arch.removeprefix("deit-")}.py').model
    cfg.backbone.img_size = args.size
    if decoder:
        cfg.decoders.depth = decoder
    model = build_config({**cfg, 'type': 'mmmask3d.MaskedRGBD'})
    model.init_weights()
    patches = args.size[0] * args.size[1] // model.backbone.patch_size**2
    masks = torch.rand(2, args.batch, patches).argsort(dim=2) >= patches // 5
    depth = 1 + torch.rand(args.batch, 1, *args.size)
    batch = dict(
        img=images(args).cpu(), depth=depth, valid=depth > 1.1, rgb_mask=masks[0],
        depth_mask=masks[1],
    )  # fmt: skip
    model.to(args.device)
    inputs = model.data_preprocessor(dict(inputs=batch))['inputs']
    model.forward = lambda x: sum(model.loss({**inputs, 'img': x}).values())
    return model


def _mae(args: argparse.Namespace) -> nn.Module:
    """mmpretrain's MAE with the decoder of its configs, for square images."""
    from mmengine.hub import get_config
    from mmpretrain.models import VisionTransformer

    cfg = get_config('mmpretrain::mae/mae_vit-base-p16_8xb512-amp-coslr-300e_in1k.py').model
    cfg.backbone.update(arch=args.arch, img_size=tuple(args.size))
    width = VisionTransformer.arch_zoo[args.arch]['embed_dims']
    cfg.neck.update(embed_dim=width, num_patches=args.size[0] * args.size[1] // 16**2)
    model = build_config(cfg, 'mmpretrain')
    model.init_weights()
    model.forward = lambda x: model.loss(x, [])['loss']
    return model


def _multimae(args: argparse.Namespace) -> nn.Module:
    """MultiMAE's own ViT-B for RGB and depth: half as many tokens as an image has, two decoders."""
    path = _clone(args, 'multimae')
    # Its utils/__init__.py imports what current versions of torch have no more.
    utils = sys.modules['utils'] = ModuleType('utils')
    utils.__path__ = [str(path / 'utils')]
    theirs = importlib.import_module('multimae')
    spatial = dict(stride_level=1, patch_size_full=16, image_size=tuple(args.size))
    channels = dict(rgb=3, depth=1)
    decoder = dict(dim_tokens=256, depth=2, num_heads=8)  # of its run_pretraining_multimae.py
    model = importlib.import_module('multimae.multimae').pretrain_multimae_base(
        {k: theirs.PatchedInputAdapter(num_channels=n, **spatial) for k, n in channels.items()},
        {
            k: theirs.SpatialOutputAdapter(
                num_channels=n, task=k, context_tasks=list(channels), **decoder, **spatial
            )
            for k, n in channels.items()
        },
    )
    losses = dict(rgb=theirs.MaskedMSELoss(), depth=theirs.MaskedL1Loss())
    tokens = args.size[0] * args.size[1] // 16**2 // 2
    predict = model.forward

    def loss(x: Tensor) -> Tensor:
        inputs = dict(rgb=x, depth=x[:, :1])
        preds, masks = predict(inputs, num_encoded_tokens=tokens)
        return sum(losses[k](preds[k], inputs[k], mask=masks[k]) for k in channels)

    model.forward = loss
    return model


#: Name on the command line, name in the table, and its config or the module itself.
BACKBONES: dict[str, tuple[str, Callable[[argparse.Namespace], dict | nn.Module]]] = {
    REFERENCE: (
        'mmpretrain VisionTransformer',
        _vit('mmpretrain.VisionTransformer', out_type='featmap'),
    ),
    'vit': ('Mask3DViT', _vit('mmmask3d.Mask3DViT')),
    'vit-window': ('Mask3DViT, windows', _vit('mmmask3d.Mask3DViT', window_size=WINDOW)),
    'pyramid': ('Mask3DPyramid', _vit('mmmask3d.Mask3DPyramid')),
    'pyramid-window': (
        'Mask3DPyramid, windows',
        _vit('mmmask3d.Mask3DPyramid', window_size=WINDOW),
    ),
    'pyramid-window-d8': (
        'Mask3DPyramid, windows, strides 4, 8, 8, 8',
        _vit('mmmask3d.Mask3DPyramid', window_size=WINDOW, out_strides=(4, 8, 8, 8)),
    ),
    'timm-own': ("timm's own forward", _timm_own),
    'timm': ('TimmViT', _timm),
    'timm-masked': ('TimmViT, a fifth of the patches kept', _timm_masked),
    'resnet50': (
        'mmpretrain ResNet-50',
        lambda args: dict(type='mmpretrain.ResNet', depth=50, out_indices=(0, 1, 2, 3)),
    ),
    'vitdet': ('mmdet ViTDet ViT, as configured', lambda a: _vitdet(a, True)),
    'vitdet-norelpos': (
        'mmdet ViTDet ViT, without relative positions',
        lambda a: _vitdet(a, False),
    ),
    'mask3d': ('MaskedRGBD', _mask3d),
    'mask3d-heavy': (
        'MaskedRGBD, all patches decoded by 4 layers of 512',
        lambda a: _mask3d(a, type='mmmask3d.DepthDecoder', num_layers=4, num_heads=16),
    ),
    'mae': ('mmpretrain MAE', _mae),
    'multimae': ('MultiMAE', _multimae),
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--models', nargs='+', choices=BACKBONES, metavar='NAME',
        help=f'of {", ".join(BACKBONES)}. Default: all backbones that can be built',
    )  # fmt: skip
    parser.add_argument(
        '--reference', default=REFERENCE, choices=BACKBONES, metavar='NAME',
        help='what ratios are formed to; always measured',
    )  # fmt: skip
    parser.add_argument(
        '--arch', default='deit-tiny', choices=ARCHITECTURES, metavar='ARCH',
        help=f'size of the transformers, a name of mmpretrain: {", ".join(ARCHITECTURES)}',
    )  # fmt: skip
    parser.add_argument('--size', type=int, nargs=2, default=[512, 512], metavar=('H', 'W'))
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1, ...')
    parser.add_argument('--threads', type=int, default=1, help='of torch on a CPU')
    parser.add_argument(
        '--vitdet', type=Path, help='mmdetection/projects/ViTDet, to measure it too'
    )
    parser.add_argument('--multimae', type=Path, help='the repository of MultiMAE, for `multimae`')
    parser.add_argument('--memory-of', nargs=2, metavar=('NAME', 'MODE'), help=argparse.SUPPRESS)
    argv = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(argv, argparse.Namespace(command_line=argv))
    if args.rounds < 2:
        parser.error(f'--rounds {args.rounds}: a spread needs two or more')
    if args.models is None:
        left_out = PRETRAINERS if args.vitdet else (*VITDET, *PRETRAINERS)
        args.models = [name for name in BACKBONES if name not in left_out]
    args.models = [args.reference, *(name for name in args.models if name != args.reference)]
    return args


def build_config(config: dict, scope: str = 'mmmask3d') -> Any:
    """Build a registered model."""
    from mmengine.registry import MODELS

    with MODELS.switch_scope_and_registry(scope) as registry:
        return registry.build(config)


def build(name: str, args: argparse.Namespace) -> nn.Module:
    """Make one backbone or pre-trainer, with random weights."""
    import torch

    torch.manual_seed(0)
    made = BACKBONES[name][1](args)
    return (build_config(made) if isinstance(made, dict) else made).to(args.device)


def images(args: argparse.Namespace) -> Tensor:
    """Random images ``(B, 3, H, W)``."""
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.randn(args.batch, 3, *args.size, generator=generator).to(args.device)


def step(model: nn.Module, x: Tensor, training: bool) -> None:
    """Run the model once, forward or forward and backward."""
    import torch

    with torch.set_grad_enabled(training):
        maps = model(x)
    if training:
        maps = maps if isinstance(maps, tuple | list) else (maps,)
        sum(m.mean() for m in maps).backward()
        model.zero_grad(set_to_none=True)


def seconds(model: nn.Module, x: Tensor, training: bool) -> float:
    """Time of one step: CPU time of this process, or wall-clock time on an accelerator."""
    import torch

    model.train(training)
    clock: Callable[[], float] = time.process_time
    finish: Callable[[], Any] = int
    if x.device.type != 'cpu':
        clock, finish = time.perf_counter, torch.cuda.synchronize
    finish()
    start = clock()
    step(model, x, training)
    finish()
    return clock() - start


def measure_speed(args: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Seconds by backbone and mode, one number a round."""
    models, x = {name: build(name, args) for name in args.models}, images(args)
    times: dict[str, dict[str, list[float]]] = {n: {m: [] for m in MODES} for n in args.models}
    for mode in MODES:
        for model in models.values():
            seconds(model, x, mode == 'training')  # warm-up
        for i in range(args.rounds):
            shift = i % len(args.models)  # nobody is always first
            for name in args.models[shift:] + args.models[:shift]:
                times[name][mode].append(seconds(models[name], x, mode == 'training'))
    return times


def _process_memory(field: str) -> int:
    """A size of this process in bytes, from Linux's account of it."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1]) * 1024
    raise SystemExit(f'/proc/self/status has no {field}; memory is measured on Linux only.')


def measure_memory(name: str, args: argparse.Namespace, training: bool) -> int:
    """Bytes that one step takes beyond the loaded model, at its peak; for a process of its own."""
    import torch

    model, x = build(name, args), images(args)
    model.train(training)
    if x.device.type != 'cpu':
        torch.cuda.reset_peak_memory_stats(x.device)
        before = torch.cuda.memory_allocated(x.device)
        step(model, x, training)
        return torch.cuda.max_memory_allocated(x.device) - before
    Path('/proc/self/clear_refs').write_text('5')  # the peak starts again
    before = _process_memory('VmRSS')
    step(model, x, training)
    return _process_memory('VmHWM') - before


def memory_in_own_process(name: str, args: argparse.Namespace, mode: str) -> int:
    """Call this script again for :func:`measure_memory`."""
    command = [sys.executable, __file__, *args.command_line, '--memory-of', name, mode]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'Measuring the memory of {name} failed:\n{done.stderr}')
    return int(done.stdout.split()[-1])


def ratios(values: list[float], reference: list[float]) -> list[float]:
    """Of each round to the reference in the same round."""
    return [v / r for v, r in zip(values, reference, strict=True)]


def table(
    times: dict[str, dict[str, list[float]]], memory: dict[str, dict[str, int]], reference: str
) -> str:
    """Ratios to the reference as a Markdown table: median over rounds, and the range."""
    lines = [
        '| | inference, time | training, time | inference, memory | training, memory |',
        '|---|---|---|---|---|',
    ]
    for name in times:
        cells = [BACKBONES[name][0]]
        for mode in MODES:
            found = ratios(times[name][mode], times[reference][mode])
            cells.append(f'{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})')
        cells += [f'{memory[name][mode] / memory[reference][mode]:.2f}' for mode in MODES]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def settings(
    args: argparse.Namespace, times: dict[str, list[float]], memory: dict[str, int]
) -> str:
    """What the ratios are ratios of: the figures of the reference."""
    import mmpretrain
    import torch

    height, width = args.size
    seconds = ' and '.join(f'{statistics.median(times[mode]):.3f} s' for mode in MODES)
    room = ' and '.join(f'{memory[mode] / 2**20:.0f} MiB' for mode in MODES)
    where = f'{args.threads} thread(s)'
    if args.device != 'cpu':
        where = torch.cuda.get_device_name(args.device)
    return (
        f'{args.arch}, {height}x{width}, batch {args.batch}, fp32, {args.device} '
        f'({platform.machine()}, {where}), torch {torch.__version__}, '
        f'mmpretrain {mmpretrain.__version__}; median of {args.rounds} rounds '
        f'(range). 1.00 is {seconds}, {room}.'
    )


def main(argv: list[str] | None = None) -> None:
    """Measure and print, or measure the one thing that the calling process asks for."""
    args = parse_args(argv)
    start()

    import torch

    torch.set_num_threads(args.threads)
    if args.memory_of:
        name, mode = args.memory_of
        print(measure_memory(name, args, mode == 'training'))
        return
    times = measure_speed(args)
    memory = {
        name: {mode: memory_in_own_process(name, args, mode) for mode in MODES}
        for name in args.models
    }
    print(table(times, memory, args.reference))
    print('\n' + settings(args, times[args.reference], memory[args.reference]))


if __name__ == '__main__':
    main()
