"""Inference: values against a model run by hand, no reading enters, bad input is named."""

import copy
import random
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

import mmmask3d
from mmmask3d.apis import MaskedRGBDInferencer, get_model
from mmmask3d.apis.inferencer import _reaching, _resize_known, validation_steps
from mmmask3d.datasets import FrameError, RGBDDataset, sample_rng
from mmmask3d.engine.run_config import load_config
from mmmask3d.weights.index import ZooError

ROOT = Path(mmmask3d.__file__).parents[1]
PRETRAINING = sorted((ROOT / 'configs/mask3d').glob('*.py'))


@pytest.fixture(scope='module')
def tiny(make_tiny_config, tmp_path_factory):
    """Config and weights of a small model whose predictions differ from pixel to pixel."""
    folder = tmp_path_factory.mktemp('tiny')
    path = make_tiny_config(folder)
    torch.manual_seed(0)
    model = get_model(path)
    torch.save(dict(state_dict=model.state_dict()), folder / 'tiny.pth')
    return path, folder / 'tiny.pth', folder / 'frames'


def build(tiny, **options):
    cfg = Config.fromfile(tiny[0])
    cfg.merge_from_dict(options)
    return MaskedRGBDInferencer(cfg, weights=tiny[1], device='cpu', show_progress=False)


@pytest.fixture(scope='module')
def inferencer(tiny):
    return build(tiny)


def pair(tiny, number=0):
    img = cv2.imread(str(tiny[2] / f'rgb/frame_{number:03d}.png'))
    stored = cv2.imread(str(tiny[2] / f'depth/frame_{number:03d}.png'), cv2.IMREAD_UNCHANGED)
    return img, stored


def only(results):
    (result,) = results['predictions']
    return result


def same(first, second, tolerance=0.0):
    for key in ('prediction', 'completed'):
        np.testing.assert_allclose(first[key], second[key], rtol=0, atol=tolerance)
    np.testing.assert_array_equal(first['valid'], second['valid'])
    assert first['unit'] == second['unit']


# ---------------------------------------------------------------- values


def test_the_mean_over_the_draws_that_removed_the_patch(tiny, inferencer):
    """Against the config's own data set and `model.predict`, one draw at a time."""
    cfg, seed, draws = load_config(tiny[0]), 5, 3
    with DefaultScope.overwrite_default_scope('mmmask3d'):
        transforms = RGBDDataset(
            **{k: v for k, v in cfg.val_dataloader.dataset.items() if k != 'type'}, lazy_init=True
        ).pipeline.transforms
    stem = tiny[2] / 'rgb/frame_000.png'
    loaded = dict(
        img_path=str(stem),
        depth_path=str(stem).replace('rgb', 'depth'),
        frame='f',
        depth_scale=1000,
        depth_invalid=(0,),
        min_depth=0,
        max_depth=None,
        depth_kind='metric',
    )
    values = []
    for draw in range(draws):
        results = dict(loaded)
        with sample_rng(seed, draw):
            for transform in transforms:
                results = transform(results)
        with torch.no_grad():
            (sample,) = inferencer.model.test_step(pseudo_collate([results]))
        removed = np.kron(sample.depth_mask.numpy().reshape(4, 6), np.ones((8, 8))) == 1
        values.append(np.where(removed, sample.pred_depth.numpy(), np.nan))
    values = np.stack(values)
    never = np.isnan(values).all(0)
    expected = np.nansum(values, 0) / np.maximum((~np.isnan(values)).sum(0), 1)

    img, stored = pair(tiny, 0)
    found = only(inferencer((img, stored), num_masks=draws, seed=seed))
    assert never.any()
    assert not never.all()
    np.testing.assert_array_equal(np.isnan(found['prediction']), never)
    np.testing.assert_allclose(found['prediction'][~never], expected[~never], atol=1e-5)
    np.testing.assert_array_equal(found['valid'], stored > 0)
    np.testing.assert_allclose(found['completed'][stored > 0], stored[stored > 0] / 1000, atol=1e-6)
    filled = (stored == 0) & (found['prediction'] > 0)
    np.testing.assert_array_equal(found['completed'][filled], found['prediction'][filled])
    assert found['unit'] == 'm'


def test_a_prediction_does_not_look_at_its_own_patch(tiny, inferencer):
    """One mask: what is read in the removed patches cannot change the prediction there."""
    img, stored = pair(tiny)
    first = only(inferencer((img, stored), num_masks=1))
    removed = np.isfinite(first['prediction'])
    changed = np.where(removed & (stored > 0), 9000, stored).astype(np.uint16)
    second = only(inferencer((img, changed), num_masks=1))
    np.testing.assert_array_equal(first['prediction'], second['prediction'])


@pytest.mark.parametrize('nothing', [np.nan, np.inf, -np.inf, -1.0, 0.0])
def test_what_is_no_reading_never_enters(tiny, inferencer, nothing):
    img, stored = pair(tiny)
    metres = (stored / 1000).astype(np.float32)
    reference = only(inferencer((img, metres)))
    metres[stored == 0] = nothing
    same(only(inferencer((img, metres))), reference)


def test_limits_and_codes_of_no_reading(tiny, inferencer):
    img, stored = pair(tiny)
    reference = only(inferencer((img, stored)))
    coded = np.where(stored == 0, 65535, stored).astype(np.uint16)
    same(only(inferencer((img, coded), depth_invalid=(65535,))), reference)
    same(only(inferencer((img, coded), max_depth=60.0)), reference)


def test_paths_arrays_and_folder_give_the_same(tiny, inferencer):
    img, stored = pair(tiny, 3)
    files = [tiny[2] / folder / 'frame_003.png' for folder in ('rgb', 'depth')]
    reference = only(inferencer((img, stored)))
    same(only(inferencer(dict(img=str(files[0]), depth=files[1]))), reference)
    same(only(inferencer((img, (stored / 1000).astype(np.float32)))), reference, 1e-5)
    metres = stored.astype(np.float64) / 1000
    same(only(inferencer((img, metres * 4000), depth_scale=4000)), reference, 1e-5)
    folder = inferencer(tiny[2])['predictions']
    assert [f['frame'] for f in folder] == [f'frame_{i:03d}' for i in range(8)]
    same(folder[3], reference, 1e-5)


def test_neither_batch_size_nor_neighbours_matter(tiny, inferencer):
    frames = [pair(tiny, i) for i in range(3)] + [pair(tiny, 0)[0]]
    reference = [only(inferencer(frame, batch_size=1, num_masks=3)) for frame in frames]
    for size in (2, 5, 64):
        results = inferencer(frames, batch_size=size, num_masks=3)['predictions']
        assert [r['frame'] for r in results] == [f'frame_{i:04d}' for i in range(4)]
        for found, expected in zip(results, reference, strict=True):
            same(found, expected, 1e-5)


def test_another_size_comes_back(tiny, inferencer):
    img, stored = pair(tiny)
    large = cv2.resize(img, (144, 96)), np.kron(stored, np.ones((3, 3), np.uint16))
    small, found = only(inferencer((img, stored))), only(inferencer(large))
    assert found['prediction'].shape == found['completed'].shape == (96, 144)
    np.testing.assert_array_equal(found['valid'], large[1] > 0)
    valid = found['valid']
    np.testing.assert_allclose(found['completed'][valid], large[1][valid] / 1000, atol=1e-6)
    assert np.isfinite(small['prediction']).mean() > 0.9


def test_resizing_mixes_known_pixels_alone():
    values = np.full((4, 6), 2.0, np.float32)
    known = np.ones((4, 6), bool)
    values[1, 2], known[1, 2] = 1e6, False
    resized = _resize_known(values, known, (18, 12))
    hole = np.kron(known, np.ones((3, 3))) == 0
    np.testing.assert_array_equal(np.isnan(resized), hole)
    np.testing.assert_allclose(resized[~hole], 2.0, rtol=1e-6)
    ramp = np.arange(6, dtype=np.float32)[None].repeat(4, 0)
    expected = np.clip((np.arange(12) + 0.5) / 2 - 0.5, 0, 5)
    everywhere = np.ones((4, 6), bool)
    np.testing.assert_allclose(_resize_known(ramp, everywhere, (12, 4))[0], expected, atol=1e-6)


def test_coverage_grows_with_the_masks(tiny, inferencer):
    img, stored = pair(tiny)
    known = [
        np.isfinite(only(inferencer((img, stored), num_masks=n))['prediction']) for n in (1, 16)
    ]
    assert known[0].mean() == 0.5  # depth_ratio of the config
    assert known[1].all()


def test_holes_of_sparse_depth_are_filled(tiny, inferencer):
    """Patches without readings are removed first; that must not leave the others for ever kept."""
    img, stored = pair(tiny, 2)
    sparse = np.zeros_like(stored)
    # readings in 4 of 24 patches, where half of all patches are removed
    for row, column in ((8, 8), (8, 32), (16, 16), (24, 40)):
        sparse[row + 1 : row + 3, column + 1 : column + 3] = 1500
    found = only(inferencer((img, sparse), num_masks=16))
    assert np.isfinite(found['prediction']).all()
    alone = np.zeros_like(stored)
    alone[9, 9] = 1500
    found = only(inferencer((img, alone), num_masks=16))
    unknown = np.isnan(found['prediction'])
    assert unknown.sum() == 64  # the only patch with a reading is what the network knows
    assert unknown[8:16, 8:16].all()


def test_where_enough_is_removed_the_masks_are_those_of_the_config(inferencer):
    valid = np.ones((32, 48), bool)
    assert _reaching(inferencer._masking, valid) is inferencer._masking
    valid[:8] = False  # a quarter of the patches; half of all are removed
    masking = _reaching(inferencer._masking, valid)
    assert masking.depth_ratio == pytest.approx((6 + 9) / 24)
    assert inferencer._masking.depth_ratio == 0.5


@pytest.mark.parametrize(
    ('known', 'removed'),
    [
        (1, 23),  # 23 without a reading; the only one with a reading is kept
        (2, 23),
        (3, 23),  # 21, and 2 of 3: half of an odd number is rounded up
        (4, 22),
        (5, 22),  # 19, and 3 of 5
        (23, 13),  # 1, and 12 of 23
        (24, 12),
    ],
)
def test_at_least_half_of_the_patches_with_readings_are_removed(inferencer, known, removed):
    valid = np.zeros((32, 48), bool)
    for patch in range(known):
        valid[8 * (patch // 6) + 3, 8 * (patch % 6) + 5] = True
    masking = _reaching(inferencer._masking, valid)
    assert masking.depth_ratio * 24 == pytest.approx(removed)
    results = dict(img=np.zeros((32, 48, 3), np.uint8), depth=np.ones((32, 48), np.float32))
    with sample_rng(0):
        mask = masking(dict(results, valid=valid))['depth_mask']
    assert mask.sum() == removed
    # Where the config removes more it stays as it is.
    more = copy.copy(inferencer._masking)
    more.depth_ratio = 23 / 24
    assert _reaching(more, valid) is more


def test_the_global_generators_are_left_alone(tiny, inferencer):
    def draws():
        return random.random(), np.random.random(), torch.rand(1).item()

    def start():
        random.seed(1), np.random.seed(1), torch.manual_seed(1)

    start()
    expected = draws()
    start()
    inferencer(pair(tiny), num_masks=2)
    inferencer.extract_features(pair(tiny))
    assert draws() == expected
    first = only(inferencer(pair(tiny), num_masks=1, seed=1))
    second = only(inferencer(pair(tiny), num_masks=1, seed=2))
    assert not np.array_equal(np.isnan(first['prediction']), np.isnan(second['prediction']))


# ---------------------------------------------------------------- units, and no depth


def test_without_depth(tiny, inferencer):
    img, _ = pair(tiny)
    found = only(inferencer(img, num_masks=2))
    assert found['unit'] == 'standardised'
    assert np.isfinite(found['prediction']).all()
    assert not found['valid'].any()
    np.testing.assert_array_equal(found['completed'], found['prediction'])
    same(only(inferencer((img, None), num_masks=2)), found)


def test_a_metric_target_needs_no_depth_for_its_unit(tiny):
    metric = build(tiny, **{'model.data_preprocessor': dict(depth_target=dict(mode='metric'))})
    found = only(metric(pair(tiny)[0], num_masks=1))
    assert found['unit'] == 'm'
    negative = found['prediction'] <= 0
    assert negative.any()
    np.testing.assert_array_equal(np.isnan(found['completed']), negative)


def test_units_are_not_mixed(tiny):
    patch = build(tiny, **{'model.data_preprocessor': dict(depth_target=dict(mode='patch'))})
    found = only(patch(pair(tiny), num_masks=1))
    assert found['unit'] == 'standardised'
    assert found['completed'] is None
    cfg = Config.fromfile(tiny[0])
    cfg.model.depth_encoder = None  # RGB to depth
    with pytest.warns(UserWarning, match='as initialised'):
        rgb2depth = MaskedRGBDInferencer(cfg, pretrained=False, device='cpu', show_progress=False)
    found = only(rgb2depth(pair(tiny), num_masks=2))
    assert found['unit'] == 'standardised'
    assert found['completed'] is None
    assert rgb2depth(pair(tiny), num_masks=1, return_pictures=True)['visualization'][0].ndim == 3


def test_relative_depth(tiny, inferencer):
    img, stored = pair(tiny)
    relative = (stored / 5000).astype(np.float32)
    found = only(inferencer((img, relative), depth_kind='relative', depth_invalid=(0,)))
    assert found['unit'] == 'relative'
    valid = stored > 0
    np.testing.assert_array_equal(found['completed'][valid], relative[valid])


def test_a_model_of_kept_readings_needs_depth(tiny):
    kept = build(tiny, **{'model.data_preprocessor': dict(depth_target=dict(stats='kept'))})
    with pytest.raises(ValueError, match='input 0 has no depth'):
        kept(pair(tiny)[0])


def test_files_of_the_data_set_are_read_as_in_training(tiny, inferencer):
    assert inferencer.depth_settings == dict(depth_scale=1000.0)
    img, stored = pair(tiny)
    stored = stored.copy()
    stored[0] = 65535
    leaf = dict(depth_scale=2000, depth_invalid=(0, 65535), min_depth=0.6, max_depth=1.2)
    twice = build(tiny, **{f'test_dataloader.dataset.{k}': v for k, v in leaf.items()})
    assert twice.depth_settings == leaf
    found = only(twice((img, stored), **twice.depth_settings, num_masks=1))
    valid = (stored >= 1200) & (stored <= 2400)
    assert valid.any()
    np.testing.assert_array_equal(found['valid'], valid)
    np.testing.assert_allclose(found['completed'][valid], stored[valid] / 2000, rtol=1e-6)
    cfg = Config.fromfile(tiny[0])
    part = cfg.test_dataloader.dataset
    both = dict(type='ConcatDataset', datasets=[part, part])
    assert build(tiny, **{'test_dataloader.dataset': both | dict(_delete_=True)}).depth_settings
    both['datasets'] = [part, part | dict(depth_scale=5000)]
    with pytest.raises(ValueError, match='several ways'):
        build(tiny, **{'test_dataloader.dataset': both | dict(_delete_=True)}).depth_settings  # noqa: B018


# ---------------------------------------------------------------- pictures and features


def test_pictures(tiny, inferencer, tmp_path):
    frames = [pair(tiny), pair(tiny)[0]]
    results = inferencer(frames, num_masks=2, out_dir=tmp_path / 'new', return_pictures=True)
    assert [p.name for p in sorted((tmp_path / 'new').iterdir())] == [
        'frame_0000.png',
        'frame_0001.png',
    ]
    for number, picture in enumerate(results['visualization']):
        read = cv2.imread(str(tmp_path / f'new/frame_{number:04d}.png'))
        np.testing.assert_array_equal(read[..., ::-1], picture)
        assert picture.std() > 10
    assert inferencer(frames, num_masks=1)['visualization'] is None
    assert 'picture' not in results['predictions'][0]


def test_a_file_where_the_pictures_should_go(tiny, inferencer, tmp_path):
    (tmp_path / 'taken').write_text('')
    with pytest.raises(FileExistsError):
        next(inferencer.stream(pair(tiny), out_dir=tmp_path / 'taken'))


def test_files_of_one_name_keep_their_pictures(tiny, inferencer, tmp_path):
    path = tiny[2] / 'rgb/frame_000.png'
    inferencer([path, path, path], num_masks=1, out_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_features_are_those_of_the_encoder(tiny, inferencer):
    frames = [pair(tiny, i)[0] for i in range(3)]
    found = inferencer.extract_features(frames, batch_size=2)
    assert len(found) == 3
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    for image, maps in zip(frames, found, strict=True):
        normalised = torch.from_numpy((image[..., ::-1] - mean) / std).permute(2, 0, 1).float()
        with torch.no_grad():
            expected = inferencer.model.backbone(normalised[None])
        assert len(maps) == len(expected)
        for level, wanted in zip(maps, expected, strict=True):
            assert level.shape == (48, 4, 6)
            torch.testing.assert_close(level, wanted[0], rtol=0, atol=1e-5)
    unread = inferencer.extract_features((frames[0], 'no such depth.png'))
    torch.testing.assert_close(unread[0][0], found[0][0], rtol=0, atol=1e-5)
    with pytest.raises(TypeError, match='num_masks'):
        inferencer.extract_features(frames, num_masks=3)


# ---------------------------------------------------------------- bad input


def test_features_of_images_without_depth(tiny, inferencer, tmp_path):
    expected = inferencer.extract_features(str(tiny[2]))
    for folder, target in (('plain', '.'), ('with_rgb', 'rgb')):
        (tmp_path / folder / target).mkdir(parents=True)
        for file in (tiny[2] / 'rgb').iterdir():
            (tmp_path / folder / target / file.name).write_bytes(file.read_bytes())
        found = inferencer.extract_features(tmp_path / folder)
        assert len(found) == len(expected)
        for (mine, *_), (theirs, *_) in zip(found, expected, strict=True):
            assert torch.equal(mine, theirs)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=r'empty holds no file that ends in \.jpg'):
        inferencer.extract_features(tmp_path / 'empty')
    with pytest.raises(FileNotFoundError, match=r'plain has no folder rgb/'):
        inferencer(tmp_path / 'plain')


def test_errors_name_the_input(tiny, inferencer, tmp_path):
    img, stored = pair(tiny)
    good, missing = (img, stored), tmp_path / 'missing.png'
    broken = tmp_path / 'broken.png'
    broken.write_bytes((tiny[2] / 'rgb/frame_000.png').read_bytes()[:200])
    for item, error, words in (
        (missing, FileNotFoundError, f'input 1 ({missing})'),
        (broken, FrameError, str(broken)),
        ((img, str(missing)), FileNotFoundError, 'input 1'),
        ((img[..., 0], stored), FrameError, 'input 1: img is uint8 of shape (32, 48)'),
        ((img / 255, stored), FrameError, 'input 1: img is float64'),
        ((img, stored[:16]), FrameError, 'input 1: colour and depth differ in size'),
        ((img, stored[..., None]), FrameError, 'input 1: depth is uint16 of shape'),
        ((img, stored > 0), FrameError, 'input 1: depth is bool'),
        ((img, stored * 0), FrameError, 'input 1: depth has no reading'),
        ((img, [1]), TypeError, 'found a tuple: ndarray, list'),
        (None, TypeError, 'found a NoneType'),
        ((img, stored, 1), TypeError, 'input 1: expected dict(img=..., depth=...)'),
        (dict(image=img), TypeError, 'found a dict: image'),
    ):
        with pytest.raises(error, match=re.escape(words)):
            inferencer([good, item], num_masks=1)


def test_options_out_of_range(tiny, inferencer):
    frame = pair(tiny)
    for options, words in (
        (dict(num_masks=0), 'num_masks must be an int of at least 1'),
        (dict(batch_size=2.0), 'batch_size must be an int'),
        (dict(seed=-1), 'seed must be an int of at least 0'),
        (dict(depth_scale=0), 'depth_scale is the number'),
        (dict(depth_kind='metre'), "'metric' or 'relative'"),
    ):
        with pytest.raises(ValueError, match=words):
            inferencer.stream(frame, **options)
    with pytest.raises(TypeError, match='depth_unit'):
        inferencer(frame, depth_unit=1)
    with pytest.raises(ValueError, match='empty'):
        inferencer([])


def test_a_reading_lost_by_resizing_is_said(tiny, inferencer):
    img, stored = np.zeros((320, 480, 3), np.uint8), np.zeros((320, 480), np.uint16)
    stored[0, 0] = 1000
    with pytest.raises(ValueError, match='input 0: none of its few readings is left'):
        inferencer((img, stored))


# ---------------------------------------------------------------- models and weights


def test_a_model_is_needed_and_weights_are(tiny):
    with pytest.raises(ValueError, match='no weights'):
        MaskedRGBDInferencer(tiny[0])
    with pytest.raises(ZooError, match='no published weights'):
        MaskedRGBDInferencer('mask3d_vit-tiny_b32-100e_rooms-240x320')
    with pytest.raises(ZooError, match='Did you mean'):
        MaskedRGBDInferencer('distilled_vit-mini')
    with pytest.warns(UserWarning, match='as initialised'):
        MaskedRGBDInferencer(tiny[0], pretrained=False, device='cpu')


def test_models_and_pipelines_that_cannot_be_run(tiny):
    pipeline = list(Config.fromfile(tiny[0]).val_pipeline)
    pipeline.insert(2, dict(type='RGBDRandomFlip', prob=0.5))
    with pytest.raises(ValueError, match='RGBDRandomFlip'):
        build(tiny, **{'test_dataloader.dataset.pipeline': pipeline})
    cfg = Config.fromfile(tiny[0])
    cfg.model = cfg.model.backbone
    with (
        pytest.warns(UserWarning, match='initialised'),
        pytest.raises(TypeError, match='builds a Mask3DViT'),
    ):
        MaskedRGBDInferencer(cfg, pretrained=False, device='cpu')
    cfg = Config.fromfile(tiny[0])
    cfg.model.decoders = dict(rgb=cfg.model.decoders.depth)
    cfg.model.heads = dict(rgb=dict(type='RGBHead'))
    cfg.model.depth_encoder = None
    with pytest.warns(UserWarning, match='as initialised'):
        mae = MaskedRGBDInferencer(cfg, pretrained=False, device='cpu', show_progress=False)
    with pytest.raises(ValueError, match='predicts rgb and no depth'):
        mae(pair(tiny))
    assert mae.extract_features(pair(tiny))[0][-1].shape == (48, 4, 6)


@pytest.mark.parametrize('path', PRETRAINING, ids=[p.stem for p in PRETRAINING])
def test_the_pipeline_of_every_pre_training_is_understood(path):
    cfg = load_config(path)
    resize, _, _ = validation_steps(cfg)
    backbone = cfg.model.backbone
    height, width = backbone.get('module', backbone).img_size  # LoRA's encoder is within
    frame = dict(img=np.zeros((60, 80, 3), np.uint8), depth=np.zeros((60, 80), np.float32))
    assert resize({**frame, 'valid': frame['depth'] > 0})['img'].shape == (height, width, 3)
