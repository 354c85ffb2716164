"""The configs of docs/data_format.md build and give frames."""

import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmmask3d.datasets import EpochIndex, resolve_masking

DOC = Path(__file__).parents[2] / 'docs' / 'data_format.md'


def config_of(variable):
    blocks = re.findall(r'```python\n(.*?)```', DOC.read_text(encoding='utf-8'), re.DOTALL)
    (block,) = (block for block in blocks if f'{variable} = ' in block)
    return Config.fromstring(block, '.py')[variable]


def write_frames(root, img_suffix='.jpg', scale=1000):
    for folder, suffix, array in (
        ('rgb', img_suffix, np.zeros((48, 64, 3), np.uint8)),
        ('depth', '.png', np.full((48, 64), min(scale, 65535), np.uint16)),
    ):
        (root / folder / 'scene_01').mkdir(parents=True)
        assert cv2.imwrite(str(root / folder / 'scene_01' / f'0000{suffix}'), array)


def test_one_source(tmp_path):
    write_frames(tmp_path / 'data/my_frames')
    settings = config_of('dataset')
    settings.data_root = str(tmp_path / settings.data_root)
    data = DATASETS.build(settings)
    assert [data.get_data_info(i)['frame'] for i in range(len(data))] == ['scene_01/0000']


def test_confidence(tmp_path):
    root = tmp_path / 'data/my_frames'
    write_frames(root)
    (root / 'confidence/scene_01').mkdir(parents=True)
    levels = np.arange(3, dtype=np.uint8).repeat(16)[None].repeat(48, 0)
    assert cv2.imwrite(
        str(root / 'confidence/scene_01/0000.png'), np.pad(levels, ((0, 0), (0, 16)))
    )
    settings = config_of('phone')
    settings.data_root = str(root)
    data = DATASETS.build(settings | dict(pipeline=[dict(type='mmmask3d.LoadRGBD')]))
    np.testing.assert_array_equal(data[0]['valid'], np.pad(levels == 2, ((0, 0), (0, 16))))


def test_packed(tmp_path, monkeypatch):
    pytest.importorskip('lmdb')
    from mmmask3d.conversion.packing import pack

    monkeypatch.chdir(tmp_path)
    root = Path('data/my_frames')
    write_frames(root)
    pack(root, Path('data/my_frames.lmdb'))
    shutil.rmtree(root)
    data = DATASETS.build(config_of('packed'))
    sample = data[0]
    assert sample['data_samples'].frame == 'scene_01/0000'
    assert (sample['inputs']['depth'] == 1).all()


def test_several_sources(tmp_path):
    # The block goes into a config with an encoder, whose patches are those of the masks.
    cfg = Config(
        dict(
            train_dataloader=config_of('train_dataloader'), model=dict(backbone=dict(patch_size=16))
        )
    )
    resolve_masking(cfg)
    settings = cfg.train_dataloader.dataset
    settings.pop('_delete_')
    for source in settings.datasets:
        source.data_root = str(tmp_path / source.data_root)
        write_frames(Path(source.data_root), scale=source.depth_scale)
    with DefaultScope.overwrite_default_scope('mmmask3d'):
        data = DATASETS.build(settings)
    samples = [data[EpochIndex(i, 0)] for i in range(len(data))]
    assert [s['data_samples'].depth_kind for s in samples] == ['metric', 'relative']
    for sample in samples:
        assert sample['inputs']['depth'].shape == (1, 240, 320)
        assert (sample['inputs']['depth'] == 1).all()
        assert sample['inputs']['depth_mask'].sum() == 240
