"""The commands for phone recordings, as printed, on folders laid out as the apps write them."""

import json
import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mmmask3d.conversion.command_line import run
from mmmask3d.conversion.sources.folder import FolderConverter
from mmmask3d.datasets import LoadRGBD, RGBDDataset

PAGE = (Path(__file__).parents[2] / 'docs/datasets/phones.md').read_text()
RNG = np.random.default_rng(0)
SIZE = HEIGHT, WIDTH = 24, 32
LEVELS = RNG.integers(0, 3, SIZE).astype(np.uint8)
DEPTH = RNG.integers(400, 6000, (4, *SIZE)).astype(np.uint16)


def section(title):
    return PAGE.partition(f'\n## {title}')[2].partition('\n## ')[0]


def command(title):
    """Arguments of the converter, as the section prints them."""
    blocks = re.findall(r'^```bash\n(mmmask3d .*?)^```', section(title), re.MULTILINE | re.DOTALL)
    (words,) = (shlex.split(block.replace('\\\n', ' ')) for block in blocks)
    assert words[1:3] == ['convert', 'folder']
    return words[3:]


def write(path, array):
    path = Path('data/raw', path)
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def colour():
    return RNG.integers(0, 256, (4 * HEIGHT, 4 * WIDTH, 3), dtype=np.uint8)


def stray():
    for i in range(4):
        write(f'stray/rgb/{i:06d}.jpg', colour())
        write(f'stray/depth/{i:06d}.png', DEPTH[i])
        write(f'stray/confidence/{i:06d}.png', LEVELS)


def polycam():
    for i in range(4):
        name = f'{638443502 + 500000 * i}'
        write(f'polycam/keyframes/images/{name}.jpg', colour())
        write(f'polycam/keyframes/corrected_images/{name}.jpg', colour())
        write(f'polycam/keyframes/depth/{name}.png', DEPTH[i])
        levels = np.array([0, 127, 255], np.uint8)[LEVELS]
        write(f'polycam/keyframes/confidence/{name}.png', levels)


def scanner():
    for i in range(8):
        write(f'scanner/depth_{i:05d}.png', DEPTH[i // 2])
        write(f'scanner/conf_{i:05d}.png', LEVELS)
        if i % 2 == 0:
            write(f'scanner/frame_{i:05d}.jpg', colour())
    Path('data/raw/scanner/info.json').write_text('{}')


def arkit():
    for i in range(8):  # colour at twice the rate, 3 ms early
        write(f'arkit/Training/41069021/lowres_wide/41069021_{305.377 + i / 60:.3f}.png', colour())
    for i in range(4):
        name = f'41069021_{305.380 + i / 30:.3f}.png'
        write(f'arkit/Training/41069021/lowres_depth/{name}', DEPTH[i])
        write(f'arkit/Training/41069021/confidence/{name}', LEVELS)


def record3d():
    for i in range(4):
        write(f'record3d/rgbd/{i}.jpg', colour())
        metres = (DEPTH[i] / 1000).astype(np.float32)
        Path(f'data/raw/record3d/rgbd/{i}.depth').write_bytes(metres.tobytes())
        Path(f'data/raw/record3d/rgbd/{i}.conf').write_bytes(LEVELS.tobytes())
    (code,) = re.findall(r'^```python\n(.*?)^```', section('Record3D'), re.MULTILINE | re.DOTALL)
    exec(code, {})


@pytest.mark.parametrize(
    ('title', 'lay_out'),
    [
        ('Stray Scanner', stray),
        ('Polycam', polycam),
        ('3D Scanner App', scanner),
        ('ARKitScenes', arkit),
        ('Record3D', record3d),
    ],
)
def test_commands_by_value(tmp_path, monkeypatch, title, lay_out):
    """Medium and high confidence, up to 5 m; depth of each frame in its place."""
    monkeypatch.chdir(tmp_path)
    # LZFSE stands aside: here nothing is compressed.
    lzfse = SimpleNamespace(decompress=bytes)
    monkeypatch.setitem(sys.modules, 'liblzfse', lzfse)
    lay_out()
    words = command(title)
    assert run(FolderConverter, [*words, '--workers=1']) == 0
    out = Path(words[1])
    manifest = json.loads((out / 'manifest.json').read_text())
    settings = dict(data_root=str(out), **manifest['rgbd_dataset'])
    data = RGBDDataset(pipeline=[LoadRGBD()], **settings)
    assert len(data) == 4
    for i in range(4):
        valid = (LEVELS >= 1) & (DEPTH[i] <= 5000)
        np.testing.assert_array_equal(data[i]['valid'], valid)
        expected = np.where(valid, DEPTH[i] / 1000, 0)
        np.testing.assert_allclose(data[i]['depth'], expected, rtol=1e-6)
        assert data[i]['img'].shape == (HEIGHT, WIDTH, 3)
    reached = DEPTH <= 5000
    dropped = np.mean([1 - (LEVELS[m] >= 1).mean() for m in reached])
    assert manifest['depth']['depth']['unsure_share'] == pytest.approx(dropped, abs=1e-4)
    assert len(manifest['left_out']) == (title == '3D Scanner App')
