"""Pixels of the reconstruction panel at known places."""

import math

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mmmask3d.visualization import depth_to_rgb, reconstruction_panel, stack_panels, write_png
from mmmask3d.visualization.colours import INVALID_DARK, INVALID_LIGHT, hatch
from mmmask3d.visualization.panels import MASKED_GREY
from mmmask3d.visualization.tiles import compose_tiles

H, W, P = 48, 64, 16  # a grid of 3 x 4; drawn 4 times as large
LEFT, TOP, GAP, BAR = 10, 26, 10, 16 + 52 + 10


def colour(cmap, unit):
    return tuple(matplotlib.colormaps[cmap](round(unit * 255), bytes=True)[:3])


def frame():
    depth = np.tile(np.linspace(1.0, 3.0, W), (H, 1))
    valid = np.ones((H, W), dtype=bool)
    valid[:P, 3 * P :] = False  # patch 3
    rgb = np.full((H, W, 3), (200, 30, 60), np.uint8)
    rgb_mask, depth_mask = np.zeros(12, bool), np.ones(12, bool)
    rgb_mask[[0, 5]] = True
    depth_mask[[0, 3, 6]] = False
    return {
        'rgb': rgb,
        'depth': depth,
        'valid': valid,
        'pred_depth': depth + 0.1,
        'rgb_mask': rgb_mask,
        'depth_mask': depth_mask,
        'patch_size': P,
    }


class Reader:
    """Reads tiles of a panel back: tile t, pixel (y, x) of the frame, first of its 4x4 block."""

    def __init__(self, panel, columns=3, bars=()):
        self.panel, self.columns, self.bars = panel, columns, bars

    def __call__(self, tile, y, x):
        row, column = divmod(tile, self.columns)
        bars = sum(1 for b in self.bars if row * self.columns <= b < tile)
        top = row * (H * 4 + TOP) + TOP + 4 * y
        left = LEFT + column * (W * 4 + GAP) + bars * BAR + 4 * x
        return tuple(int(v) for v in self.panel[top, left])


def test_six_tiles_show_what_they_should():
    panel = reconstruction_panel(**frame(), vmin=1.0, vmax=3.0)
    read = Reader(panel)
    assert panel.dtype == np.uint8
    # RGB and masked RGB: patches 0 and 5 (row 1, column 1) are grey, patch 1 is not.
    assert read(0, 5, 5) == read(1, 5, P + 5) == (200, 30, 60)
    assert read(1, 5, 5) == read(1, P, P) == read(1, 2 * P - 1, 2 * P - 1) == MASKED_GREY
    assert read(1, P - 1, P) == (200, 30, 60)
    # Masked depth: patch 0 kept, patch 1 grey, kept patch 3 hatched.
    assert read(2, 0, 0) == read(4, 0, 0) == colour('turbo', 0.0)
    assert read(2, 7, P) == read(2, H - 1, W - 1) == MASKED_GREY
    assert {read(2, y, 3 * P + 4) for y in range(P)} == {INVALID_LIGHT, INVALID_DARK}
    # Prediction is 0.1 m of 2 m further; also where there is no reading.
    assert read(3, 0, 0) == colour('turbo', 0.05)
    assert read(3, 0, W - 1) == colour('turbo', 1.0)
    # Truth is hatched where it has none, and not grey where it was removed.
    assert read(4, H - 1, W - 1) == colour('turbo', 1.0)
    assert {read(4, y, W - 1) for y in range(P)} == {INVALID_LIGHT, INVALID_DARK}
    # The error of 0.1 m on a scale to a quarter of 2 m; kept patches are not scored.
    assert read(5, H - 1, W - 1) == colour('inferno', 0.2)
    assert read(5, 0, 0) == read(5, P + 3, 2 * P + 3) == MASKED_GREY


def test_no_tile_of_inputs_that_are_whole_or_not_given():
    """RGB to depth: four tiles, and the bar of the depth stands at the truth."""
    sample = {**frame(), 'rgb_mask': np.zeros(12, bool), 'depth_mask': np.ones(12, bool)}
    panel = reconstruction_panel(**sample, vmin=1.0, vmax=3.0)
    read = Reader(panel, 4, bars=(2,))
    assert read(0, 5, 5) == (200, 30, 60)
    assert read(1, 0, 0) == colour('turbo', 0.05)
    assert read(2, 0, 0) == colour('turbo', 0.0)
    assert read(3, 0, 0) == read(3, H - 1, W - 1) == colour('inferno', 0.2)


def test_bars_span_the_colour_map():
    panel = reconstruction_panel(**frame(), vmin=1.0, vmax=3.0)
    x = LEFT + 3 * (W * 4 + GAP) + 3
    for row, cmap in ((0, 'turbo'), (1, 'inferno')):
        top = row * (H * 4 + TOP) + TOP
        assert tuple(panel[top, x]) == colour(cmap, 1.0)
        assert tuple(panel[top + H * 4 - 1, x]) == colour(cmap, 0.0)
        assert tuple(panel[top - 2, x]) == (255, 255, 255)


def bars_drawn(monkeypatch, **kwargs):
    from mmmask3d.visualization import panels

    seen = []

    def spy(tiles, *rest, **options):
        seen.extend(tiles)
        return compose_tiles(tiles, *rest, **options)

    monkeypatch.setattr(panels, 'compose_tiles', spy)
    panels.reconstruction_panel(**kwargs)
    return seen


def test_default_limits_are_percentiles_of_the_truth_and_fixed_for_the_error(monkeypatch):
    sample = frame()
    sample['depth'][~sample['valid']] = 1e6
    tiles = bars_drawn(monkeypatch, **sample)
    expected = np.percentile(sample['depth'][sample['valid']], [1, 99])
    (depth_bar, error_bar) = [t.bar for t in tiles if t.bar]
    assert (depth_bar.vmin, depth_bar.vmax) == tuple(expected)
    assert error_bar.vmin == 0
    assert error_bar.vmax == pytest.approx((expected[1] - expected[0]) / 4)
    assert depth_bar.unit == 'm'


def test_titles_state_ratio_error_and_alignment(monkeypatch):
    titles = [t.title for t in bars_drawn(monkeypatch, **frame(), aligned=True)]
    assert titles == [
        'RGB',
        'masked RGB (17% removed)',
        'masked depth (75% removed)',
        'predicted depth (aligned)',
        'true depth',
        '|error|, RMSE 0.1 m',
    ]
    relative = [t.title for t in bars_drawn(monkeypatch, **frame(), unit='relative')]
    assert relative[-1] == '|error|, RMSE 0.1'


@pytest.mark.parametrize('garbage', [1e6, math.nan, math.inf])
def test_invalid_depth_changes_no_pixel(garbage):
    clean, dirty = frame(), frame()
    clean['depth'][~clean['valid']] = 0
    dirty['depth'][~dirty['valid']] = garbage
    np.testing.assert_array_equal(reconstruction_panel(**clean), reconstruction_panel(**dirty))


def test_kept_readings_can_be_pasted():
    panel = reconstruction_panel(**frame(), vmin=1.0, vmax=3.0, paste_kept=True)
    read = Reader(panel)
    assert read(3, 0, 0) == colour('turbo', 0.0)  # kept, was 0.05
    assert read(3, H - 1, 0) == colour('turbo', 0.05)  # removed
    assert read(3, 0, W - 1) == colour('turbo', 1.0)  # kept without a reading: prediction stays


def test_rgb_only_and_a_single_row():
    sample = frame()
    kept = {k: sample[k] for k in ('rgb', 'rgb_mask', 'patch_size')}
    panel = reconstruction_panel(**kept, pred_rgb=np.full((H, W, 3), 7, np.uint8))
    assert panel.shape == (TOP + H * 4 + GAP, 3 * (W * 4 + GAP) + GAP, 3)
    assert Reader(panel)(2, 3, 3) == (7, 7, 7)
    row = reconstruction_panel(**sample, columns=6, vmin=1.0, vmax=3.0)
    read = Reader(row, columns=6, bars=(2,))
    assert read(4, 0, 0) == colour('turbo', 0.0)
    assert read(4, H - 1, W - 1) == colour('turbo', 1.0)
    assert row.shape[0] < panel.shape[0] + 40


def test_a_prediction_without_a_truth_has_a_scale_of_its_own():
    sample = frame()
    panel = reconstruction_panel(sample['rgb'], patch_size=P, pred_depth=sample['pred_depth'] * 9)
    read = Reader(panel, columns=2)
    assert (read(1, 0, 0), read(1, H - 1, W - 1)) == (colour('turbo', 0.0), colour('turbo', 1.0))


def test_frames_without_reading_or_spread_are_drawn():
    nothing = frame()
    nothing['valid'][:] = False
    assert Reader(reconstruction_panel(**nothing))(4, 2, 2) in (INVALID_LIGHT, INVALID_DARK)
    flat = frame()
    flat['depth'][:] = 2.0
    assert Reader(reconstruction_panel(**flat))(4, H - 1, 0) == colour('turbo', 0.0)


def test_markers_are_in_no_colour_map():
    for cmap in ('turbo', 'inferno'):
        table = matplotlib.colormaps[cmap](np.arange(256), bytes=True)[:, :3].astype(int)
        for marker in (MASKED_GREY, INVALID_LIGHT, INVALID_DARK):
            assert np.abs(table - marker).max(axis=1).min() > 40


def test_depth_to_rgb_by_value():
    depth = np.array([[0.0, 1.0, 2.0, 4.0, np.nan]])
    valid = np.array([[False, True, True, True, True]])
    got = depth_to_rgb(depth, valid)
    expected = [hatch(1, 5)[0, 0], colour('turbo', 0), colour('turbo', 1 / 3), colour('turbo', 1)]
    np.testing.assert_array_equal(got[0], [*expected, hatch(1, 5)[0, 4]])
    clipped = depth_to_rgb(depth, valid, vmin=1.5, vmax=2.0, cmap='viridis')
    assert tuple(clipped[0, 1]) == colour('viridis', 0)
    assert tuple(clipped[0, 3]) == colour('viridis', 1)


def test_wrong_arguments_are_named():
    sample = frame()
    with pytest.raises(ValueError, match='needs valid'):
        reconstruction_panel(**{**sample, 'valid': None})
    with pytest.raises(ValueError, match=r'pred_depth is \(48, 60\)'):
        reconstruction_panel(**{**sample, 'pred_depth': sample['depth'][:, :60]})


def test_sheet_and_file(tmp_path):
    a, b = np.full((4, 6, 3), 9, np.uint8), np.full((3, 8, 3), 5, np.uint8)
    sheet = stack_panels([a, b])
    assert sheet.shape == (7, 8, 3)
    assert (sheet[:4, 6:] == 255).all()
    path = write_png(tmp_path / 'new' / 'sheet.png', sheet)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), sheet)
    with pytest.raises(ValueError, match='at least one'):
        stack_panels([])
