"""What several tests need: small RGB-D folders and a config that trains on them in seconds."""

import concurrent.futures.thread
import functools
import importlib.util
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import runpy
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import cv2
import mmengine.runner
import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner.checkpoint import CheckpointLoader

# Several libraries would each take every core, also in the processes that tests start.
os.environ.setdefault('OMP_NUM_THREADS', '1')
torch.set_num_threads(1)
cv2.setNumThreads(0)  # a copy of this process would wait for OpenCV's threads, which it has not


@pytest.fixture(autouse=True, scope='session')
def short_starts():
    """Leave out what costs most of a small run: yapf for each checkpoint, asking for compilers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda text, **_: (text, True))
        once = functools.cache(mmengine.runner.runner.collect_env)
        patch.setattr('mmengine.runner.runner.collect_env', once)
        yield


@contextmanager
def global_state_kept():
    """Leave states of the process as they were: default scope, message hubs, loaders."""
    kept = [(cls, cls._instance_dict.copy()) for cls in (DefaultScope, MessageHub, MMLogger)]
    schemes = CheckpointLoader._schemes.copy()
    yield
    for cls, instances in kept:
        cls._instance_dict.clear()
        cls._instance_dict.update(instances)
    CheckpointLoader._schemes = schemes


@pytest.fixture(autouse=True)
def keep_global_state():
    """What a test sets, the next one does not meet."""
    with global_state_kept():
        yield


@pytest.fixture(autouse=True, scope='module')
def keep_global_state_of_module():
    """Nor does the next file meet what a fixture of a whole file sets."""
    with global_state_kept():
        yield


def write_rgbd_folder(path, n=4, size=(32, 48), seed=0):
    """Write `n` smooth frames of `size` (height, width): rgb/*.png, depth/*.png in millimetres.

    Each frame has a hole (0) in its depth, of another size, so that frames differ in the number of
    valid pixels.
    """
    path, rng = Path(path), np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[0:height, 0:width] / max(size)
    for folder in ('rgb', 'depth'):
        (path / folder).mkdir(parents=True, exist_ok=True)
    for i in range(n):
        a, b, c, phase = rng.uniform(0.3, 3.0, 4)
        depth = 1.0 + a * x + b * y + 0.3 * np.sin(6 * c * x + phase)  # metres
        shading = 255 / (0.5 + depth)[..., None] * rng.uniform(0.5, 1.0, 3)
        image = np.clip(shading + rng.normal(0, 4, (height, width, 3)), 0, 255)
        hole = 2 + (3 * i) % (height // 2)
        depth[:hole, : hole + 1] = 0
        name = f'frame_{i:03d}.png'
        assert cv2.imwrite(str(path / 'rgb' / name), image.astype(np.uint8))
        assert cv2.imwrite(str(path / 'depth' / name), (depth * 1000).astype(np.uint16))
    return path


@pytest.fixture(scope='session')
def make_rgbd_folder():
    """Function `make_rgbd_folder(path, n=4, size=(height, width), seed=0)`, returns the path."""
    return write_rgbd_folder


def draw_scenes(n=12, size=(120, 160), seed=0, shift=(0, 0), scale=1.0):
    """`n` frames of discs and boxes before a slanted wall: [(image, depth, valid), ...].

    `shift` (right, down) in pixels and `scale` (about the centre) displace depth against colour.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    frames = []
    for _ in range(n):
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        # Where depth looks, in the coordinates of colour.
        v = (y - (height - 1) / 2 - shift[1]) / scale + (height - 1) / 2
        u = (x - (width - 1) / 2 - shift[0]) / scale + (width - 1) / 2
        image = np.tile(rng.uniform(60, 200, 3).astype(np.float32), (height, width, 1))
        depth = 3 + 0.002 * u + 0.003 * v
        for distance in np.sort(rng.uniform(1, 2.4, 7))[::-1]:
            cx, cy = rng.uniform(0, width), rng.uniform(0, height)
            a, b = rng.uniform(8, 22, 2) * height / 120
            colour, disc = rng.uniform(0, 255, 3), rng.random() < 0.5
            for target, p, q, value in ((image, x, y, colour), (depth, u, v, distance)):
                inside = ((p - cx) / a) ** 2 + ((q - cy) / b) ** 2 < 1
                if not disc:
                    inside = (abs(p - cx) < a) & (abs(q - cy) < b)
                target[inside] = value
        image = np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)
        frames.append((image, depth.astype(np.float32), np.ones(size, bool)))
    return frames


@pytest.fixture(scope='session')
def make_scenes():
    """Function `make_scenes(n, size, seed, shift, scale)`, see `draw_scenes`."""
    return draw_scenes


@pytest.fixture(scope='session')
def make_scene_folder():
    """Function `make_scene_folder(path, **options)`, those of `draw_scenes`; depth in mm."""

    def make(path, **options):
        for folder in ('rgb', 'depth'):
            (path / folder).mkdir(parents=True)
        for i, (image, depth, _) in enumerate(draw_scenes(**options)):
            assert cv2.imwrite(str(path / 'rgb' / f'{i:03d}.png'), image)
            assert cv2.imwrite(
                str(path / 'depth' / f'{i:03d}.png'), np.rint(depth * 1000).astype(np.uint16)
            )
        return path

    return make


@pytest.fixture(scope='session')
def tiny_rooms(tmp_path_factory):
    """Folder with six generated frames of 128x96, two of them for validation; not to be changed."""
    folder = tmp_path_factory.mktemp('rooms') / 'tiny'
    script = Path(__file__).parents[1] / 'tools/dataset_converters/generate_rooms.py'
    options = ['--rooms=3', '--val-rooms=1', '--views=2', '--size', '128', '96', '--workers=1']
    subprocess.run([sys.executable, script, '--out', folder, *options], check=True)
    return folder


@pytest.fixture
def load_tool(monkeypatch):
    """Function that imports a script below tools/: `load_tool('demo.py')`.

    Returns the module that its `main` comes from, in `mmmask3d.cli` for most.
    """

    def load(name):
        path = Path(__file__).parents[1] / 'tools' / name
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and named tuples look themselves up there; undone after the test, since
        # another file may have imported the same module for its worker processes.
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return sys.modules[module.main.__module__]

    return load


def _play(command, cwd, log):
    sys.stdout = sys.stderr = log.open('w', buffering=1)
    for stream in (1, 2):
        os.dup2(sys.stdout.fileno(), stream)
    if cwd is not None:
        os.chdir(cwd)
    concurrent.futures.thread._threads_queues.clear()  # or one made in a pool would wait for itself
    multiprocessing.forkserver._forkserver.__init__()  # that of the original is no child of a copy
    sys.argv = [str(part) for part in command]
    runpy.run_path(sys.argv[0], run_name='__main__')


def start_copy(command, log, cwd=None):
    """Start a script in a copy of this process, in which the packages are imported already."""
    copy = multiprocessing.get_context('fork').Process(target=_play, args=(command, cwd, log))
    copy.start()
    return copy


def run_copy(command, log, cwd=None):
    """Run a script as `start_copy` does.

    Returns its exit code; what it writes goes to the file `log`.
    """
    copy = start_copy(command, log, cwd)
    copy.join()
    return copy.exitcode


@pytest.fixture(scope='session')
def run_script(tmp_path_factory):
    """Function `run_script(script, *arguments, cwd=None)`, see `run_copy`; returns the output."""

    def run(*command, cwd=None):
        log = tmp_path_factory.mktemp('script') / 'said.txt'
        code = run_copy(command, log, cwd)
        assert code == 0, log.read_text()[-3000:]
        return log.read_text()

    return run


@pytest.fixture
def run_ranks(tmp_path, monkeypatch):
    """Function `run_ranks(script, *arguments)`: exit code and output of each of two ranks."""

    def run(*command):
        with socket.socket() as server:
            server.bind(('127.0.0.1', 0))
            port = server.getsockname()[1]
        common = dict(WORLD_SIZE=2, LOCAL_WORLD_SIZE=2, MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        ranks = []
        for rank in range(2):
            for name, value in dict(common, RANK=rank, LOCAL_RANK=rank).items():
                monkeypatch.setenv(name, str(value))
            log = tmp_path / f'rank_{rank}.txt'
            ranks.append((start_copy((*command, '--launcher', 'pytorch'), log), log))
        for copy, _ in ranks:
            copy.join(timeout=300)
            copy.kill()
            copy.join()
        return [(copy.exitcode, log.read_text()) for copy, log in ranks]

    return run


@pytest.fixture
def steps_in_copies(monkeypatch):
    """Steps of chains run as `run_copy` does, which spares each the import of the packages.

    One after the other: a copy of a process with several threads at work may hang.
    """
    one = threading.Lock()

    def execute(step, log, threads):
        with one:
            code = run_copy(step.command, log)
        for line in log.read_text().splitlines():
            if (shown := step.show(line)) is not None:
                print(f'  {shown}')
        return code

    monkeypatch.setattr('mmmask3d.steps.Step._execute', execute)


@pytest.fixture
def warnings_logged_by_mmengine():
    """List that fills with the warnings of mmengine's logger."""
    lines = []

    class Collect(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())

    handler, logger = Collect(level=logging.WARNING), MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


TINY_CONFIG = """# Pre-training in seconds: 8 frames of 32x48, batches of 2, a ViT of width 48.
masking = dict(rgb_ratio=0.5, depth_ratio=0.5)
pipeline = [
    dict(type='LoadRGBD'),
    dict(type='RGBDRandomResizedCrop', scale=(48, 32), crop_ratio_range=(0.5, 1.0)),
    dict(type='RGBDRandomFlip', prob=0.5),
    dict(type='DepthAwareMasking'),
    dict(type='PackRGBDInputs'),
]
val_pipeline = [
    dict(type='LoadRGBD'),
    dict(type='RGBDResize', scale=(48, 32)),
    dict(type='DepthAwareMasking'),
    dict(type='PackRGBDInputs'),
]
source = dict(type='RGBDDataset', data_root={root!r}, img_suffix='.png', serialize_data=False)
loader = dict(batch_size=2, num_workers=0, collate_fn=dict(type='default_collate'))
train_dataloader = dict(
    **loader,
    drop_last=True,
    sampler=dict(type='EpochIndexSampler', shuffle=True),
    dataset=dict(**source, pipeline=pipeline),
)
val_dataloader = dict(
    **loader,
    sampler=dict(type='EpochIndexSampler', shuffle=False),
    dataset=dict(**source, test_mode=True, pipeline=val_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='MaskedDepthMetric')
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
train_cfg = dict(type='ResumableEpochBasedTrainLoop', max_epochs=2, val_interval=1)
model = dict(
    type='MaskedRGBD',
    backbone=dict(
        type='Mask3DViT',
        arch=dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96),
        img_size=(32, 48),
        patch_size=8,
        # draws from the global generator in every step, which resuming has to get right
        drop_rate=0.1,
        drop_path_rate=0.1,
    ),
    depth_encoder=dict(type='DepthEncoder', embed_dims=24, num_layers=1, num_heads=2),
    fusion=dict(type='AddFusion', embed_dims=24),
    decoders=dict(depth=dict(type='DepthDecoder', num_layers=1, num_heads=2)),
    heads=dict(depth=dict(type='DepthHead', loss=dict(type='DepthL2Loss'))),
)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3))
param_scheduler = [
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True)
]
auto_scale_lr = dict(base_batch_size=4)
default_scope = 'mmmask3d'
default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=1),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='AtomicCheckpointHook', interval=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    rng_state=dict(type='RNGStateHook'),
    masking=dict(type='MaskingHook'),
)
env_cfg = dict(dist_cfg=dict(backend='gloo'))
randomness = dict(seed=3)
"""


@pytest.fixture(scope='session')
def make_tiny_config():
    """Function `make_tiny_config(folder)`: a pre-training config over eight small frames."""

    def make(folder):
        root = write_rgbd_folder(folder / 'frames', n=8)
        path = folder / 'tiny.py'
        path.write_text(TINY_CONFIG.replace('{root!r}', repr(str(root))))
        return path

    return make


@pytest.fixture
def tiny_config(make_tiny_config, tmp_path):
    """Path of a pre-training config over eight small frames."""
    return make_tiny_config(tmp_path)
