"""A converter of a made-up data set, importable by worker processes and as a command line.

Its source is a folder of scenes; a frame is a text file that holds a seed, or ``broken``.
"""

import argparse
import sys
import time

import cv2
import numpy as np

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.converter import Converter, FrameRef, Plan
from mmmask3d.conversion.frame import Frame
from mmmask3d.conversion.paths import SourceError, safe_name
from mmmask3d.datasets.depth_io import FrameError

HEIGHT, WIDTH = 12, 16


def make_source(root, scenes=3, frames=4):
    """Write a source; returns the frame names."""
    names = []
    for s in range(scenes):
        (root / f'scene_{s}').mkdir(parents=True)
        for f in range(frames):
            (root / f'scene_{s}' / f'{f:02d}.txt').write_text(str(100 * s + f))
            names.append(f'scene_{s}/{f:02d}')
    return names


def frame_of(seed):
    """The images of a frame, by value."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    depth = rng.integers(0, 4000, (HEIGHT, WIDTH)).astype(np.uint16)
    instance = np.zeros((HEIGHT, WIDTH), np.uint16)
    instance[2:10, 3:12] = 7
    label = np.where(instance > 0, 2, rng.integers(0, 2, instance.shape)).astype(np.uint8)
    return {'rgb': colour, 'depth': depth, 'label': label, 'instance': instance}


class ToyConverter(Converter):
    """Convert the toy data set."""

    name = 'toy'
    title = 'Toy'
    suffixes = {'rgb': '.jpg', 'depth': '.png', 'label': '.png', 'instance': '.png'}
    classes = {'label': ('wall', 'chair')}
    categories = {2: 'chair'}

    def __init__(self, args):
        super().__init__(args)
        self.seconds = args.seconds
        self.shift = args.shift

    @classmethod
    def add_arguments(cls, parser):
        parser.add_argument('--seconds', type=float, default=0.0, help='time a frame takes')
        parser.add_argument('--shift', type=int, default=0, help='added to seeds')

    def options(self):
        return {'shift': self.shift}

    def sources(self):
        return sorted(p for p in self.source.iterdir() if p.is_dir())

    def plan(self, source):
        if (source / 'unreadable').exists():
            raise SourceError(f'{source}: cannot be read')
        files = sorted(source.glob('*.txt'))
        split = 'val' if source.name.endswith('0') else 'train'
        return Plan([FrameRef(safe_name(f'{source.name}/{f.stem}'), str(f), split) for f in files])

    def read(self, opened, locator):
        time.sleep(self.seconds)
        with open(locator) as file:
            content = file.read()
        if content == 'broken':
            raise FrameError(f'{locator}: broken')
        if content == 'bug':
            raise ZeroDivisionError(locator)
        seed = int(content) + self.shift
        images = frame_of(seed)
        if seed % 2:  # as a file, stored unchanged
            images['rgb'] = cv2.imencode('.jpg', images['rgb'])[1].tobytes()
        return Frame(images, categories={7: 2}, extra={'seed': seed})


def arguments(source, shift=0):
    """What the command line would give."""
    return argparse.Namespace(source=source, seconds=0.0, shift=shift)


if __name__ == '__main__':
    from toy_converter import ToyConverter as Importable  # not of __main__, for the workers

    sys.exit(run(Importable))
