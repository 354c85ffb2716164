"""Compares backbones in speed and memory, as ratios to mmpretrain's ViT of the same size.

    python tools/benchmarks/backbone_speed.py --arch deit-tiny --size 512 512
    python tools/benchmarks/backbone_speed.py --vitdet mmdetection/projects/ViTDet

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
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mmmask3d.cli.start import start

if TYPE_CHECKING:
    from torch import Tensor, nn


PRETRAINING_SIZE = 224  # of the stored position embedding, resampled in every forward pass
WINDOW = 14
REFERENCE = 'mmpretrain-vit'
VITDET = ('vitdet', 'vitdet-norelpos')
ARCHITECTURES = ('deit-tiny', 'deit-small', 'base', 'large')


def _plain(args: argparse.Namespace) -> nn.Module:
    from mmpretrain.models import VisionTransformer

    return VisionTransformer(arch=args.arch, img_size=PRETRAINING_SIZE, out_type='featmap')


def _vit(args: argparse.Namespace, **options) -> nn.Module:
    from mmmask3d.models import Mask3DViT

    return Mask3DViT(arch=args.arch, img_size=PRETRAINING_SIZE, **options)


def _pyramid(args: argparse.Namespace, **options) -> nn.Module:
    from mmmask3d.models import Mask3DPyramid

    return Mask3DPyramid(arch=args.arch, img_size=PRETRAINING_SIZE, **options)


def _vitdet(args: argparse.Namespace, use_rel_pos: bool) -> nn.Module:
    """mmdet's ViTDet transformer of the same size, with the settings of its own configs."""
    from mmpretrain.models import VisionTransformer

    if args.vitdet is None:
        raise SystemExit('--models: vitdet needs --vitdet, the path of mmdet projects/ViTDet.')
    if not (args.vitdet / 'vitdet').is_dir():
        raise SystemExit(
            f'--vitdet {args.vitdet}: no folder vitdet/ there; expected the folder '
            'projects/ViTDet of the mmdetection repository.'
        )
    if str(args.vitdet) not in sys.path:
        sys.path.insert(0, str(args.vitdet))
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


def _of_timm(args: argparse.Namespace, run: Callable[..., Tensor] | None = None) -> nn.Module:
    """A ViT of timm of the same size, whose layers ``run`` by another way than its maps."""
    from torch.nn import Module

    from mmmask3d.models import TimmViT

    size = args.arch.removeprefix('deit-')
    encoder = TimmViT(f'vit_{size}_patch16_224', img_size=tuple(args.size))

    class Run(Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return (run(self.encoder, x),)

    return encoder if run is None else Run()


def _kept(encoder: nn.Module, x: Tensor) -> Tensor:
    """The tokens of every fifth patch, as in masked pre-training."""
    import torch

    rows, columns = encoder.grid_size
    ids = torch.arange(0, rows * columns, 5, device=x.device)
    return encoder(x, ids.expand(len(x), -1))


def _resnet(args: argparse.Namespace) -> nn.Module:
    from mmengine.registry import MODELS

    return MODELS.build(dict(type='mmpretrain.ResNet', depth=50, out_indices=(0, 1, 2, 3)))


#: Name on the command line, name in the table, how to make it.
BACKBONES: dict[str, tuple[str, Callable[[argparse.Namespace], nn.Module]]] = {
    REFERENCE: ('mmpretrain VisionTransformer', _plain),
    'vit': ('Mask3DViT', _vit),
    'vit-window': ('Mask3DViT, windows', lambda a: _vit(a, window_size=WINDOW)),
    'pyramid': ('Mask3DPyramid', _pyramid),
    'pyramid-window': ('Mask3DPyramid, windows', lambda a: _pyramid(a, window_size=WINDOW)),
    'pyramid-window-d8': (
        'Mask3DPyramid, windows, strides 4, 8, 8, 8',
        lambda a: _pyramid(a, window_size=WINDOW, out_strides=(4, 8, 8, 8)),
    ),
    'timm-own': (
        "timm's own forward",
        lambda a: _of_timm(a, lambda encoder, x: encoder.trunk.forward_features(x)),
    ),
    'timm': ('TimmViT', _of_timm),
    'timm-masked': ('TimmViT, a fifth of the patches kept', lambda a: _of_timm(a, _kept)),
    'resnet50': ('mmpretrain ResNet-50', _resnet),
    'vitdet': ('mmdet ViTDet ViT, as configured', lambda a: _vitdet(a, True)),
    'vitdet-norelpos': (
        'mmdet ViTDet ViT, without relative positions',
        lambda a: _vitdet(a, False),
    ),
}


class Figures(NamedTuple):
    """What is measured of one backbone: seconds of each round, and bytes."""

    inference: list[float]
    training: list[float]
    inference_memory: int
    training_memory: int


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--models', nargs='+', choices=BACKBONES, metavar='NAME',
        help=f'of {", ".join(BACKBONES)}; {REFERENCE} is always measured. Default: all that can be '
        'built',
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
    parser.add_argument('--memory-of', nargs=2, metavar=('NAME', 'MODE'), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.rounds < 2:
        parser.error(f'--rounds {args.rounds}: a spread needs two or more')
    if args.models is None:
        args.models = [name for name in BACKBONES if args.vitdet or name not in VITDET]
    args.models = [REFERENCE, *(name for name in args.models if name != REFERENCE)]
    return args


def build(name: str, args: argparse.Namespace) -> nn.Module:
    """Make one backbone, with random weights."""
    import torch

    torch.manual_seed(0)
    return BACKBONES[name][1](args).to(args.device)


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
    if x.device.type == 'cpu':
        start = time.process_time()
        step(model, x, training)
        return time.process_time() - start
    torch.cuda.synchronize(x.device)
    start = time.perf_counter()
    step(model, x, training)
    torch.cuda.synchronize(x.device)
    return time.perf_counter() - start


def measure_speed(args: argparse.Namespace) -> dict[str, dict[bool, list[float]]]:
    """Seconds by backbone and by whether it trains, one number a round."""
    models, x = {name: build(name, args) for name in args.models}, images(args)
    times: dict[str, dict[bool, list[float]]] = {n: {False: [], True: []} for n in args.models}
    for training in (False, True):
        for model in models.values():
            seconds(model, x, training)  # warm-up
        for i in range(args.rounds):
            shift = i % len(args.models)  # nobody is always first
            for name in args.models[shift:] + args.models[:shift]:
                times[name][training].append(seconds(models[name], x, training))
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
    command = [sys.executable, __file__, '--memory-of', name, mode, '--arch', args.arch]
    command += ['--size', *map(str, args.size), '--batch', str(args.batch)]
    command += ['--device', args.device, '--threads', str(args.threads)]
    command += ['--vitdet', str(args.vitdet)] if args.vitdet else []
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f'Measuring the memory of {name} failed:\n{done.stderr}')
    return int(done.stdout.split()[-1])


def measure(args: argparse.Namespace) -> dict[str, Figures]:
    """All figures of all backbones."""
    times, figures = measure_speed(args), {}
    for name in args.models:
        memory = [memory_in_own_process(name, args, mode) for mode in ('inference', 'training')]
        figures[name] = Figures(times[name][False], times[name][True], *memory)
    return figures


def ratios(values: list[float], reference: list[float]) -> list[float]:
    """Of each round to the reference in the same round."""
    return [v / r for v, r in zip(values, reference, strict=True)]


def table(figures: dict[str, Figures]) -> str:
    """Ratios as a Markdown table: median over rounds, and the range."""

    def cell(values: list[float], reference: list[float]) -> str:
        found = ratios(values, reference)
        return f'{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})'

    base = figures[REFERENCE]
    lines = [
        '| | inference, time | training, time | inference, memory | training, memory |',
        '|---|---|---|---|---|',
    ]
    for name, found in figures.items():
        cells = [
            BACKBONES[name][0],
            cell(found.inference, base.inference),
            cell(found.training, base.training),
            f'{found.inference_memory / base.inference_memory:.2f}',
            f'{found.training_memory / base.training_memory:.2f}',
        ]
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)


def settings(args: argparse.Namespace, base: Figures) -> str:
    """What the ratios are ratios of."""
    import mmpretrain
    import torch

    height, width = args.size
    absolute = (
        f'{statistics.median(base.inference):.3f} s and {statistics.median(base.training):.3f} s, '
        f'{base.inference_memory / 2**20:.0f} and {base.training_memory / 2**20:.0f} MiB'
    )
    where = f'{args.threads} thread(s)'
    if args.device != 'cpu':
        where = torch.cuda.get_device_name(args.device)
    return (
        f'{args.arch}, {height}x{width}, batch {args.batch}, fp32, {args.device} '
        f'({platform.machine()}, {where}), torch {torch.__version__}, '
        f'mmpretrain {mmpretrain.__version__}; median of {args.rounds} rounds '
        f'(range). 1.00 is {absolute}.'
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
    figures = measure(args)
    print(table(figures))
    print('\n' + settings(args, figures[REFERENCE]))


if __name__ == '__main__':
    main()
