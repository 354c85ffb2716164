"""Contact sheets as a command: files, pictures by value, masks by value, frames that fail."""

import re

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from mmmask3d.datasets import EpochIndex
from mmmask3d.inspection.browse import draw_frames, draw_pipeline
from mmmask3d.inspection.instances import InstanceReader
from mmmask3d.inspection.sources import open_folder
from mmmask3d.registry import DATASETS
from mmmask3d.visualization.panels import MASKED_GREY


@pytest.fixture
def main(load_tool):
    module = load_tool('analysis_tools/browse_rgbd.py')
    return lambda *arguments: module.main([str(a) for a in arguments])


def test_rooms_end_to_end(main, tiny_rooms, tmp_path):
    out = tmp_path / 'look'
    assert main(tiny_rooms, '--out-dir', out, '--num', '3', '--rows', '2') == 0
    names = ['index.html', 'sheet_01.png', 'sheet_02.png']
    assert sorted(p.name for p in out.iterdir()) == names
    page = (out / 'index.html').read_text()
    assert page.count('data:image/jpeg;base64,') == 3
    assert not re.search(r'<script|src="(?!data:)|href="(?!#)', page)
    for name in ('room_0000_view_00', 'room_0001_view_00', 'room_0002_view_01'):
        assert page.count(f'>{name}</a>') == 1
    assert '<th>semantic unlabelled</th><th>instances</th>' in page
    # Two frames on the first sheet, one on the second.
    heights = [Image.open(out / name).height for name in names[1:]]
    assert heights[0] == pytest.approx(2 * heights[1], rel=0.2)


def test_figures_and_instances_of_rooms(tiny_rooms):
    source = open_folder(tiny_rooms)
    (drawn,) = draw_frames([source], 1, [4])
    depth = cv2.imread(str(tiny_rooms / f'depth/{drawn.frame}.png'), cv2.IMREAD_UNCHANGED)
    assert drawn.figures['without a reading'] == f'{(depth == 0).mean():.1%}'
    assert drawn.figures['median'] == f'{np.median(depth[depth > 0]) / 1000:.2f} m'
    assert drawn.figures['size'] == '128x96'
    # COCO and instance PNG agree where both have an instance.
    stored = cv2.imread(str(tiny_rooms / f'instance/{drawn.frame}.png'), cv2.IMREAD_UNCHANGED)
    found = InstanceReader(source).read(drawn.frame, f'{tiny_rooms}/rgb/{drawn.frame}.jpg')
    assert found.max() > 1
    assert drawn.figures['instances'] == str(found.max())
    for thing in range(1, found.max() + 1):
        (label,) = np.unique(stored[found == thing])
        np.testing.assert_array_equal(stored == label, found == thing)
    source.annotations = {}
    png = InstanceReader(source).read(drawn.frame, f'{tiny_rooms}/rgb/{drawn.frame}.jpg')
    np.testing.assert_array_equal(png, stored)
    source.instances = None
    assert InstanceReader(source).read(drawn.frame, f'{tiny_rooms}/rgb/x.jpg') is None


def tile(panel, number, bars=0, height=32, width=48):
    """One tile of a panel, whose frames of 48 pixels are drawn 6 times as large."""
    left = 10 + number * (6 * width + 10) + bars * 78
    return panel[26 : 26 + 6 * height : 6, left : left + 6 * width : 6]


def test_the_masks_are_those_of_the_pipeline(tiny_config):
    cfg = Config.fromfile(tiny_config)
    drawn = draw_pipeline(cfg, 'train', 2, draws=2, seed=5)
    init_default_scope('mmmask3d')
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    keys = [(0, 0), (0, 1), (7, 0), (7, 1)]
    assert [(d.index, int(d.figures['draw']) - 1) for d in drawn] == keys
    seen = set()
    for one, (index, epoch) in zip(drawn, keys, strict=True):
        inputs = dataset[EpochIndex(index, epoch, seed=5)]['inputs']
        rgb = inputs['img'].numpy().transpose(1, 2, 0)[..., ::-1]
        removed = {
            key: inputs[key].numpy().reshape(4, 6).repeat(8, 0).repeat(8, 1)
            for key in ('rgb_mask', 'depth_mask')
        }
        assert 0 < removed['rgb_mask'].sum() < removed['rgb_mask'].size
        np.testing.assert_array_equal(tile(one.picture, 0), rgb)
        masked = np.where(removed['rgb_mask'][..., None], MASKED_GREY, rgb)
        np.testing.assert_array_equal(tile(one.picture, 1), masked)
        grey = (tile(one.picture, 2) == MASKED_GREY).all(-1)
        np.testing.assert_array_equal(grey, removed['depth_mask'])
        shown, whole = tile(one.picture, 2), tile(one.picture, 3, bars=1)
        np.testing.assert_array_equal(shown[~grey], whole[~grey])
        seen.add(inputs['rgb_mask'].numpy().tobytes())
    assert len(seen) == 4
    validation = draw_pipeline(cfg, 'val', 1, draws=2)  # test_mode: the same masks each time
    np.testing.assert_array_equal(*(tile(v.picture, 1) for v in validation))


def test_the_pipeline_as_a_command(main, tiny_config, tmp_path, capsys):
    out = tmp_path / 'look'
    options = ('--pipeline', '--index', 3, '--draws', 2)
    assert main(tiny_config, '--out-dir', out, *options) == 0
    assert capsys.readouterr().out.split() == [f'{out}/sheet_01.png', f'{out}/index.html']
    page = (out / 'index.html').read_text()
    assert page.count('<td class="number">50.0%</td>') == 4  # both ratios of both draws


def test_a_frame_that_cannot_be_drawn_is_named(main, make_rgbd_folder, tmp_path, capsys):
    folder = make_rgbd_folder(tmp_path / 'set', 3)
    evil = '<img src=x onerror=alert(1)>'
    for kind in ('rgb', 'depth'):
        (folder / kind / 'frame_001.png').rename(folder / kind / f'{evil}.png')
    (folder / f'depth/{evil}.png').write_bytes(b'')
    out = tmp_path / 'look'
    assert main(folder, '--img-suffix', '.png', '--out-dir', out) == 1
    assert f'frame {evil!r} cannot be drawn' in capsys.readouterr().err
    page = (out / 'index.html').read_text()
    assert evil not in page
    assert '&lt;img src=x onerror=alert(1)&gt;' in page
    assert 'id="show-failed"' in page
    assert page.count('data:image/jpeg') == 2


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['{folder}', '--pipeline'], '--pipeline needs a config'),
        (['{folder}', '--img-suffix', '.png', '--index', '9'], 'there are 4 frames, 0 to 3'),
        (['{config}', '--pipeline', '--split', 'all'], 'a config has train, val, test'),
        (['{unmasked}', '--pipeline'], 'draws no masks'),
    ],
)
def test_usage_errors(main, make_rgbd_folder, tiny_config, tmp_path, arguments, message, capsys):
    folder = make_rgbd_folder(tmp_path / 'set', 4)
    unmasked = tmp_path / 'unmasked.py'
    lines = tiny_config.read_text().splitlines()
    unmasked.write_text('\n'.join(line for line in lines if 'masking' not in line.lower()))
    given = [a.format(folder=folder, config=tiny_config, unmasked=unmasked) for a in arguments]
    with pytest.raises(SystemExit) as stopped:
        main(*given, '--out-dir', tmp_path / 'look')
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'look').exists()
