"""How pictures are laid out: their size, and room for what stands below them."""

import numpy as np
import pytest

from mmmask3d.visualization import tiles as module
from mmmask3d.visualization.tiles import MAX_TILE_WIDTH, Tile, compose_tiles, font, swatch

LEFT, TOP = module._GAP, module._TITLE_HEIGHT


def shown(image):
    """The picture as it is drawn, without what surrounds it."""
    sheet = compose_tiles([Tile('', image)], 1)
    return sheet[TOP : -module._GAP, LEFT : -module._GAP]


@pytest.mark.parametrize('width', [16, 100, 255, 256])
def test_small_pictures_are_enlarged_by_a_whole_number(width):
    image = np.random.default_rng(0).integers(0, 256, (12, width, 3), dtype=np.uint8)
    factor = -(-256 // width)
    assert np.array_equal(shown(image), image.repeat(factor, 0).repeat(factor, 1))


def test_wide_pictures_are_averaged_down():
    image = np.random.default_rng(0).integers(0, 256, (20, 2 * MAX_TILE_WIDTH, 3), dtype=np.uint8)
    blocks = image.reshape(10, 2, MAX_TILE_WIDTH, 2, 3).mean((1, 3))
    assert np.abs(shown(image) - blocks).max() <= 1


def test_a_row_of_wide_pictures_is_not_wide():
    image = np.zeros((1024, 2048, 3), np.uint8)
    sheet = compose_tiles([Tile('a', image)] * 4, 4)
    assert sheet.shape == (320 + TOP + LEFT, 4 * (MAX_TILE_WIDTH + LEFT) + LEFT, 3)


def test_a_long_legend_leaves_the_caption_whole(monkeypatch):
    texts = []
    monkeypatch.setattr(
        module.ImageDraw.ImageDraw, 'text', lambda _, place, text, *a, **k: texts.append(text)
    )
    caption = 'scene0000_00/frame-000100.color'
    image = np.zeros((192, 256, 3), np.uint8)
    names = ['floor', 'wall', 'cabinet']
    assert sum(font(13).getlength(t) for t in [*names, caption]) > 256 > font(13).getlength(caption)
    compose_tiles([Tile('t', image)], 1, caption, [(swatch((1, 2, 3)), name) for name in names])
    assert texts == ['t', *names, caption]
