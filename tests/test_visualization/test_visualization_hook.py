"""The hook writes the panels of the first frames through the visualizer."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.visualization import Visualizer
from mmpretrain.structures import DataSample
from PIL import Image

from mmmask3d.engine.visualization_hook import ReconstructionVisualizationHook
from mmmask3d.registry import HOOKS
from mmmask3d.visualization import panel_of_sample, reconstruction_panel

GRID, PATCH = (2, 3), 8
SIZE = (16, 24)


def make_frame(seed, **changes):
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 255, (3, *SIZE), dtype=np.uint8))
    depth = torch.from_numpy(rng.uniform(1, 4, SIZE).astype(np.float32))
    fields = {
        'depth': depth,
        'valid': torch.from_numpy(rng.uniform(size=SIZE) < 0.9),
        'pred_target': depth * 2 - 1,
        'pred_depth': depth + 0.2,
        'rgb_mask': torch.tensor([True, False] * 3),
        'depth_mask': torch.tensor([False, True] * 3),
    }
    fields.update(changes)
    sample = DataSample(
        metainfo={
            'frame': f'scene/{seed:04d}',
            'grid': GRID,
            'patch_size': PATCH,
            'depth_kind': 'metric',
            'target_mode': 'standardise',
        }
    )
    for name, value in fields.items():
        if value is not None:
            sample.set_field(value, name)
    return image, sample


def make_batch(seeds):
    images, samples = zip(*map(make_frame, seeds), strict=True)
    return {'inputs': {'img': list(images)}}, list(samples)


class FakeLoop(EpochBasedTrainLoop):
    def __init__(self, epoch, max_epochs):
        self._epoch, self._iter, self._max_iters = epoch, 5 * epoch, 5 * max_epochs


class FakeIterLoop(IterBasedTrainLoop):
    def __init__(self, iteration, max_iters):
        self._epoch, self._iter, self._max_iters = 0, iteration, max_iters


@pytest.fixture
def runner(tmp_path):
    visualizer = Visualizer(vis_backends=[{'type': 'LocalVisBackend'}], save_dir=str(tmp_path))
    return SimpleNamespace(visualizer=visualizer, _train_loop=FakeLoop(3, 10))


def written(tmp_path):
    return {p.name for p in tmp_path.rglob('*.png')}


def test_first_frames_over_batches_become_png(runner, tmp_path):
    hook = HOOKS.build({'type': 'ReconstructionVisualizationHook', 'num_frames': 3})
    hook.before_val_epoch(runner)
    for i, seeds in enumerate([(0, 1), (2, 3), (4, 5)]):
        data, outputs = make_batch(seeds)
        hook.after_val_iter(runner, i, data, outputs)
    names = {f'val_{i:02d}_scene_{i:04d}_3.png' for i in range(3)}
    assert written(tmp_path) == names
    image, sample = make_frame(1)
    expected = reconstruction_panel(
        image.permute(1, 2, 0).numpy()[..., ::-1],
        patch_size=PATCH,
        depth=sample.depth.numpy(),
        valid=sample.valid.numpy(),
        pred_depth=sample.pred_depth.double().numpy(),
        rgb_mask=sample.rgb_mask.numpy(),
        depth_mask=sample.depth_mask.numpy(),
        caption='scene/0001',
    )
    (path,) = tmp_path.rglob('val_01*.png')
    np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)


def test_interval_and_last_validation(runner, tmp_path):
    hook = ReconstructionVisualizationHook(num_frames=1, interval=4)
    for epoch in range(1, 8):
        runner._train_loop = FakeLoop(epoch, 7)
        hook.before_val_epoch(runner)
        hook.after_val_iter(runner, 0, *make_batch([0]))
    assert written(tmp_path) == {f'val_00_scene_0000_{e}.png' for e in (1, 5, 7)}


@pytest.mark.parametrize(
    ('loop', 'step'), [(FakeIterLoop(500, 1000), 500), (None, 0), ({'type': 'Unbuilt'}, 0)]
)
def test_step_follows_the_training_loop_and_never_builds_it(runner, tmp_path, loop, step):
    runner._train_loop = loop
    hook = ReconstructionVisualizationHook(num_frames=1)
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, *make_batch([7]))
    assert written(tmp_path) == {f'val_00_scene_0007_{step}.png'}


def test_test_loop(runner, tmp_path):
    hook = ReconstructionVisualizationHook(num_frames=1)
    for _ in range(2):
        hook.before_test_epoch(runner)
        hook.after_test_iter(runner, 0, *make_batch([5, 6]))
    assert written(tmp_path) == {'test_00_scene_0005_0.png'}


def test_only_the_main_process_draws(runner, tmp_path, monkeypatch):
    from mmmask3d.engine import visualization_hook

    monkeypatch.setattr(visualization_hook, 'is_main_process', lambda: False)
    hook = ReconstructionVisualizationHook(num_frames=1)
    hook.before_val_epoch(runner)
    hook.after_val_iter(runner, 0, *make_batch([0]))
    assert written(tmp_path) == set()


def test_nothing_to_draw_is_an_error():
    with pytest.raises(ValueError, match='at least 1'):
        ReconstructionVisualizationHook(num_frames=0)


def test_without_depth_input_the_picture_is_aligned():
    nothing_kept = torch.ones(6, dtype=torch.bool)
    image, sample = make_frame(0, pred_depth=None, depth_mask=nothing_kept)
    exact = reconstruction_panel(
        image.permute(1, 2, 0).numpy()[..., ::-1],
        patch_size=PATCH,
        depth=sample.depth.numpy(),
        valid=sample.valid.numpy(),
        pred_depth=sample.depth.double().numpy(),
        rgb_mask=sample.rgb_mask.numpy(),
        depth_mask=nothing_kept.numpy(),
        aligned=True,
        caption='scene/0000',
    )
    got = panel_of_sample(image, sample)
    assert got.shape == exact.shape
    tiles = got[:, : 3 * (264 + 10)]  # the title of the error tile holds rounding, 1e-16
    different = (tiles != exact[:, : 3 * (264 + 10)]).any(axis=2)
    assert different[: 176 + 26].sum() == 0
    assert different.mean() < 0.01


def test_a_model_without_depth_head_gets_rgb_tiles_only():
    rgb = torch.full((3, *SIZE), 9, dtype=torch.uint8)
    image, sample = make_frame(0, pred_depth=None, pred_target=None, pred_rgb=rgb)
    expected = reconstruction_panel(
        image.permute(1, 2, 0).numpy()[..., ::-1],
        patch_size=PATCH,
        rgb_mask=sample.rgb_mask.numpy(),
        pred_rgb=np.full((*SIZE, 3), 9, np.uint8),
        caption='scene/0000',
    )
    np.testing.assert_array_equal(panel_of_sample(image, sample), expected)


def test_normalised_images_are_refused():
    image, sample = make_frame(0)
    with pytest.raises(ValueError, match='uint8'):
        panel_of_sample(image.float(), sample)
