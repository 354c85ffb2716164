"""Crops of frames that are not decoded yet: the box, colour and depth, what is damaged."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.transforms import BaseTransform

from mmmask3d.datasets import EpochIndex, FrameError, RGBDDataset, RGBDRandomResizedCrop
from mmmask3d.datasets.depth_io import decode_colour
from mmmask3d.datasets.lazy_frame import LazyDepth, LazyJpeg, choose_reduction
from mmmask3d.datasets.nearest import resize_nearest
from mmmask3d.registry import TRANSFORMS


def picture(height, width, seed=0, blur=2.0):
    """Detail in brightness at the scale of `blur` pixels, colour that changes slowly."""
    rng = np.random.default_rng(seed)

    def noise(scale, channels):
        field = rng.normal(0, 1, (height, width, channels)).astype(np.float32)
        return (cv2.GaussianBlur(field, (0, 0), scale) * scale).reshape(height, width, channels)

    image = 128 + 90 * noise(blur, 1) + 100 * noise(12.0, 3)
    return image.clip(0, 255).astype(np.uint8)


def jpeg(image, quality=95, **options):
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    for name, value in options.items():
        flags += [getattr(cv2, f'IMWRITE_JPEG_{name.upper()}'), int(value)]
    return cv2.imencode('.jpg', image, flags)[1].tobytes()


def planted_depth(height, width, seed=0):
    """1 + row * 200 + column, with holes."""
    y, x = np.mgrid[0:height, 0:width]
    holes = np.random.default_rng(seed).random((height, width)) < 0.2
    return np.where(holes, 0, 1 + 200 * y + x).astype(np.uint16)


def crop(content, depth, box, size):
    """The crop transform on a file that is not decoded, with a given box."""
    transform = RGBDRandomResizedCrop(scale=size)
    transform.rand_crop_params = lambda img: box
    image = LazyJpeg(content, 'a.jpg', depth.shape)
    lazy = LazyDepth(depth, (1000.0, (0,), 0.0, None, 'metric'))
    return transform.transform(dict(img=image, depth=lazy, valid=None))


# ---------------------------------------------------------------- the box


@st.composite
def boxes(draw):
    shape = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    height, width = draw(st.integers(1, shape[0])), draw(st.integers(1, shape[1]))
    top = draw(st.integers(0, shape[0] - height))
    left = draw(st.integers(0, shape[1] - width))
    return (top, left, height, width), shape


@settings(deadline=None, max_examples=150)
@given(box_and_shape=boxes(), size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_box_and_factor(box_and_shape, size):
    box, shape = box_and_shape
    factor, snapped = choose_reduction(box, size, shape)
    if factor == 1:
        assert snapped == box
        return
    top, left, height, width = snapped
    assert not any(side % factor for side in snapped)
    assert 0 <= top < top + height <= shape[0]
    assert 0 <= left < left + width <= shape[1]
    assert height // factor >= size[1]
    assert width // factor >= size[0]
    ends = (top, box[0]), (left, box[1]), (top + height, box[0] + box[2])
    for ours, drawn in (*ends, (left + width, box[1] + box[3])):
        assert abs(ours - drawn) < factor


@settings(deadline=None, max_examples=40)
@given(
    box_and_shape=boxes(),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
)
def test_crop_of_the_decoded_frame(box_and_shape, size, seed):
    box, shape = box_and_shape
    image, depth = picture(*shape, seed), planted_depth(*shape, seed)
    content = jpeg(image)
    factor, (top, left, height, width) = choose_reduction(box, size, shape)
    got = crop(content, depth, box, size)
    # Depth and validity are picked from the same box in the frame's own pixels.
    picked = resize_nearest(depth[top : top + height, left : left + width], size)
    np.testing.assert_array_equal(got['valid'], picked > 0)
    np.testing.assert_array_equal(got['depth'], picked / np.float32(1000))
    # Colour is cut from the image that the decoder gives at the chosen fraction of the size.
    # How near that is to the mean over the pixels is tested below, where there are enough of them.
    whole = LazyJpeg(content, 'a.jpg', shape).decode(factor)
    inside = slice(top // factor, (top + height) // factor)
    cut = whole[inside, left // factor : (left + width) // factor]
    np.testing.assert_array_equal(got['img'], cv2.resize(cut, size))


# ---------------------------------------------------------------- quality and place of colour


@pytest.mark.parametrize('size', [(120, 90), (48, 36), (25, 19)])
@pytest.mark.parametrize('box', [(0, 0, 240, 320), (17, 28, 191, 251)])
@pytest.mark.parametrize('blur', [0.7, 6.0])
def test_reduced_decoding_is_as_good_as_resampling(size, box, blur):
    """Closer to the mean over the pixels than bilinear resizing of the decoded frame is.

    Stated tolerance: 5 grey levels on average against area resizing, whatever the detail, and
    never more than 1 level farther from it than bilinear resizing.
    """
    content = jpeg(picture(240, 320, blur=blur))
    depth = np.ones((240, 320), np.uint16)
    factor, (top, left, height, width) = choose_reduction(box, size, depth.shape)
    assert factor > 1
    got = crop(content, depth, box, size)['img'].astype(int)
    whole = decode_colour(content, 'a.jpg')[top : top + height, left : left + width]
    area = cv2.resize(whole, size, interpolation=cv2.INTER_AREA).astype(int)
    bilinear = cv2.resize(whole, size, interpolation=cv2.INTER_LINEAR).astype(int)
    error, ordinary = np.abs(got - area).mean(), np.abs(bilinear - area).mean()
    assert error < 5
    assert error <= ordinary + 1


@pytest.mark.parametrize('shape', [(480, 640), (530, 730), (427, 561)])
@pytest.mark.parametrize('seed', range(2))
def test_colour_and_depth_stay_together_below_a_pixel(shape, seed):
    """Ramps in colour say where a pixel comes from, to a fraction of one of the output's."""
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    ramps = np.stack([x * 255 / shape[1], y * 255 / shape[0], np.full(shape, 90)], -1)
    depth = (1 + y * 100).astype(np.uint16), (1 + x * 80).astype(np.uint16)
    rng = np.random.default_rng(seed)
    size = (int(rng.integers(30, 120)), int(rng.integers(30, 120)))
    height, width = (
        int(rng.integers(2 * s, n + 1)) for s, n in zip(size[::-1], shape, strict=True)
    )
    box = (
        int(rng.integers(0, shape[0] - height + 1)),
        int(rng.integers(0, shape[1] - width + 1)),
        height,
        width,
    )
    content = jpeg(ramps.round().astype(np.uint8), 98)
    rows, columns = (crop(content, d, box, size) for d in depth)
    row = (rows['depth'] * 1000 - 1) / 100
    column = (columns['depth'] * 1000 - 1) / 80
    row_in_colour = rows['img'][..., 1].astype(float) * shape[0] / 255
    column_in_colour = columns['img'][..., 0].astype(float) * shape[1] / 255
    # On average over the frame, where rounding to 8 bits and picking pixels cancel.
    assert abs((row_in_colour - row).mean()) < 0.35 * height / size[1]
    assert abs((column_in_colour - column).mean()) < 0.35 * width / size[0]


# ---------------------------------------------------------------- whole pipelines


class Nothing(BaseTransform):
    """Between loading and cropping, it makes the loader decode."""

    def transform(self, results):
        assert isinstance(results['img'], np.ndarray)
        assert isinstance(results['depth'], np.ndarray)
        return results


class OwnCrop(RGBDRandomResizedCrop):
    """A subclass may look at the image, so it finds it decoded."""

    def transform(self, results):
        results['img'] = 255 - results['img']
        return super().transform(results)


def make_frames(root, write_frame, depth=lambda i: planted_depth(60, 84, i)):
    image = picture(60, 84)
    for i in range(3):
        paths = write_frame(root, str(i), image, depth(i))
        paths[0].with_suffix('.jpg').write_bytes(jpeg(image))


@pytest.mark.parametrize('img_suffix', ['.jpg', '.png'])
def test_nothing_changes_where_nothing_is_reduced(tmp_path, write_frame, img_suffix):
    make_frames(tmp_path, write_frame)
    load = dict(type='mmmask3d.LoadRGBD')
    # More than half of the frame: its box is too small for 1/2.
    crop = dict(type='mmmask3d.RGBDRandomResizedCrop', scale=(48, 36), interpolation='bicubic')
    options = dict(data_root=str(tmp_path), img_suffix=img_suffix, max_depth=9.0)
    later = RGBDDataset(pipeline=[load, crop], **options)
    at_once = RGBDDataset(pipeline=[load, Nothing(), crop], **options)
    for epoch in range(3):
        a, b = (data[EpochIndex(epoch, epoch=epoch)] for data in (later, at_once))
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])


def test_it_is_switched_off(tmp_path, write_frame):
    make_frames(tmp_path, write_frame)
    crop = dict(type='mmmask3d.RGBDRandomResizedCrop', scale=(12, 9), crop_ratio_range=(0.8, 1))
    images = []
    for reduced, between in ((True, []), (False, []), (True, [Nothing()])):
        load = dict(type='mmmask3d.LoadRGBD', reduced_decoding=reduced)
        data = RGBDDataset(data_root=str(tmp_path), pipeline=[load, *between, crop])
        images.append(data[EpochIndex(0, epoch=0)]['img'])
    np.testing.assert_array_equal(images[1], images[2])
    assert (images[0] != images[1]).any()


def test_other_transforms_get_the_image(tmp_path, write_frame):
    make_frames(tmp_path, write_frame)
    TRANSFORMS.register_module(module=OwnCrop, force=True)
    for second in (
        dict(type='mmpretrain.ColorJitter', brightness=0.4),
        dict(type='mmpretrain.RandomGrayscale', prob=1.0, keep_channels=True),
        dict(type='mmmask3d.RGBDRandomFlip', prob=1.0),
        dict(type='mmmask3d.OwnCrop', scale=(32, 24)),
    ):
        crop = dict(type='mmmask3d.RGBDRandomResizedCrop', scale=(32, 24))
        pipeline = [dict(type='mmmask3d.LoadRGBD'), second, crop]
        out = RGBDDataset(data_root=str(tmp_path), pipeline=pipeline)[EpochIndex(0, epoch=0)]
        assert out['img'].shape == (24, 32, 3)
        assert out['depth'].shape == out['valid'].shape == (24, 32)


# ---------------------------------------------------------------- damage


CROP = [
    dict(type='mmmask3d.LoadRGBD'),
    dict(type='mmmask3d.RGBDRandomResizedCrop', scale=(16, 12)),
    dict(type='mmmask3d.PackRGBDInputs'),
]


def test_a_header_that_lies(tmp_path, write_frame):
    make_frames(tmp_path, write_frame)
    content = (tmp_path / 'rgb/0.jpg').read_bytes()
    start = content.index(b'\xff\xc0')
    # The first frame header says 60x84, a second one (which decoders follow or refuse) 60x80.
    header = content[start : start + 2 + int.from_bytes(content[start + 2 : start + 4], 'big')]
    other = header[:7] + (80).to_bytes(2, 'big') + header[9:]
    (tmp_path / 'rgb/0.jpg').write_bytes(
        content[:start] + header + other + content[start + len(header) :]
    )
    data = RGBDDataset(data_root=str(tmp_path), pipeline=CROP)
    with pytest.raises(FrameError, match=r'rgb/0\.jpg'):
        data[0]


def test_colour_of_another_size(tmp_path, write_frame):
    make_frames(tmp_path, write_frame)
    (tmp_path / 'rgb/0.jpg').write_bytes(jpeg(picture(60, 80)))
    data = RGBDDataset(data_root=str(tmp_path), pipeline=CROP)
    with pytest.raises(FrameError, match=r"(?s)'0': colour and depth differ.*60x80.*60x84"):
        data[0]


@pytest.mark.parametrize('part', ['end', 'all'])
def test_damaged_colour_is_dropped_like_any_other(tmp_path, write_frame, part):
    make_frames(tmp_path, write_frame)
    path = tmp_path / 'rgb/0.jpg'
    content = path.read_bytes()
    if part == 'end':
        path.write_bytes(content[: len(content) // 2])
    else:  # the header is whole, everything after it is not
        start = content.index(b'\xff\xda')
        path.write_bytes(content[: start - 40] + bytes(len(content) - start + 38) + b'\xff\xd9')
    with pytest.raises(FrameError, match=r'rgb/0\.jpg'):
        RGBDDataset(data_root=str(tmp_path), pipeline=CROP)[0]
    data = RGBDDataset(data_root=str(tmp_path), pipeline=CROP, on_error='drop')
    assert data[0]['data_samples'].frame == '1'
    assert data.num_unreadable == 1


def test_the_checks_look_at_the_whole_frame(tmp_path, write_frame, warnings_logged):
    """Before any crop: a frame without a reading, and one whose unit is wrong."""
    make_frames(tmp_path, write_frame, lambda i: np.full((60, 84), (0, 3, 11000)[i], np.uint16))
    for path in tmp_path.glob('rgb/*.png'):
        path.unlink()  # they would be named in a warning
    data = RGBDDataset(data_root=str(tmp_path), pipeline=CROP, max_depth=10.0)
    with pytest.raises(FrameError, match=r"'0': .*no depth reading.*from 0 to 0"):
        data[0]
    data[1]
    (line,) = warnings_logged
    assert 'largest depth 0.003 m' in line
    with pytest.raises(FrameError, match=r"'2': .*no depth reading.*beyond max_depth=10"):
        data[2]
    far = RGBDDataset(data_root=str(tmp_path), pipeline=CROP, depth_scale=1.0)
    far[2]
    assert 'median 11000 m' in warnings_logged[1]
