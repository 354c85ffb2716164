"""Strips of one frame: titles and pixels at known places."""

import numpy as np
import pytest

from mmmask3d.datasets.palette import distinct_palette
from mmmask3d.visualization import contact_sheet
from mmmask3d.visualization.colours import depth_to_rgb
from mmmask3d.visualization.contact_sheet import (
    CONTOUR,
    Labels,
    frame_strip,
    instance_picture,
    label_picture,
    message_strip,
)

H, W = 60, 80


def frame():
    rgb = np.full((H, W, 3), (10, 200, 90), np.uint8)
    depth = np.full((H, W), 3.0, np.float32)
    depth[:, :40] = 1.0
    valid = np.ones((H, W), bool)
    valid[:15] = False
    return rgb, depth, valid


def tiles_of(monkeypatch, *arguments, **options):
    seen = {}

    def spy(tiles, columns, caption, legend):
        seen.update(tiles=tiles, columns=columns, caption=caption, legend=[t for _, t in legend])
        return np.zeros((1, 1, 3), np.uint8)

    monkeypatch.setattr(contact_sheet, 'compose_tiles', spy)
    frame_strip(*arguments, **options)
    return seen


def test_what_is_drawn(monkeypatch):
    rgb, depth, valid = frame()
    ids = np.zeros((H, W), np.uint8)
    ids[:, 60:], ids[0, 0] = 2, 255
    instances = np.zeros((H, W), np.uint16)
    instances[20:30, 20:30], instances[40:50, 20:30] = 700, 3
    seen = tiles_of(
        monkeypatch,
        *(rgb, depth, valid),
        labels=[Labels('sem', ids, ('a', 'b', 'c'))],
        instances=instances,
        caption='x',
    )
    assert [t.title for t in seen['tiles']] == [
        *('colour', 'depth, 25.0% without a reading', 'contours of depth on colour'),
        *('sem', '2 instances'),
    ]
    assert (seen['columns'], seen['caption']) == (5, 'x')
    assert seen['legend'] == ['no reading', 'contour of depth', 'b', 'unlabelled']
    colour, depth_tile, contours, _, _ = seen['tiles']
    np.testing.assert_array_equal(colour.image, rgb)
    assert (depth_tile.bar.unit, depth_tile.bar.vmin, depth_tile.bar.vmax) == ('m', 1, 3)
    np.testing.assert_array_equal(depth_tile.image, depth_to_rgb(depth, valid, 1, 3))
    drawn = (contours.image == CONTOUR).all(-1)
    assert drawn[15:, 39].all()
    assert not drawn[:, [30, 50]].any()
    assert len(np.unique(contours.image[~drawn].reshape(-1, 3), axis=0)) == 1  # grey


def test_two_label_maps_are_told_apart(monkeypatch):
    ids = np.ones((H, W), np.uint8)
    both = [Labels('one', ids, ('a',)), Labels('two', ids * 2, ('a',))]
    seen = tiles_of(monkeypatch, *frame(), labels=both, unit='relative')
    assert seen['legend'][2:] == ['one: a', f'two: {H * W} pixels outside the classes']
    assert seen['tiles'][1].bar.unit == 'relative'


def test_labels_by_value():
    ids = np.array([[0, 1, 2, 3, 255]], np.uint8)
    grey = np.full((1, 5, 3), 100, np.uint8)
    drawn = label_picture(grey, Labels('', ids, ('a', 'b')))
    palette = np.array(distinct_palette(2))
    np.testing.assert_array_equal(drawn[0, 1:3], np.rint(0.6 * palette + 40))
    assert not drawn[0, [0, 3, 4]].any()


def test_instances_by_value():
    instances = np.zeros((10, 10), np.uint16)
    instances[:, 5:] = 9
    drawn = instance_picture(np.full((10, 10, 3), 100, np.uint8), instances)
    assert (drawn[:, :5] == 60).all()
    assert (drawn[:, 5] == 255).all()  # the outline
    np.testing.assert_array_equal(drawn[0, 7], np.rint(0.6 * np.array(distinct_palette(1)[0]) + 40))
    everywhere = instance_picture(np.full((4, 4, 3), 100, np.uint8), np.full((4, 4), 7))
    assert (everywhere == drawn[0, 7]).all()


def test_frames_without_reading_are_drawn():
    rgb, depth, valid = frame()
    strip = frame_strip(rgb, depth * np.nan, valid & False, caption='<x>')
    assert strip.dtype == np.uint8
    assert strip.shape[1] > 3 * 4 * W / 1.25


def test_maps_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r'instances is \(60, 81\), but colour is \(60, 80\)'):
        frame_strip(*frame(), instances=np.zeros((H, W + 1), np.uint8))


def test_a_message_is_written_in_a_strip():
    strip = message_strip('cannot be read ' * 50, 400)
    assert strip.shape == (40, 400, 3)
    assert (strip != 255).any()
