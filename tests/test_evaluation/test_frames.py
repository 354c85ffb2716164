"""Frames of several data sets, and what a converted folder says of their cameras."""

import json
import math

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from mmmask3d.evaluation.frames import (
    depth_targets,
    label_targets,
    normal_targets,
    read_camera,
    read_frames,
)


def labelled(path, size=(8, 12)):
    sample = SegDataSample(metainfo=dict(img_path=path, ori_shape=size))
    sample.gt_sem_seg = PixelData(data=torch.tensor([[[1, 255], [0, 2]]]))
    return dict(inputs=torch.ones(3, *size, dtype=torch.uint8), data_samples=sample)


def rgbd(path, kind='metric', size=(8, 12)):
    valid = torch.ones(1, *size, dtype=torch.bool)
    valid[:, 0] = False
    image = torch.zeros(3, *size, dtype=torch.uint8)
    info = DataSample(metainfo=dict(depth_kind=kind, img_path=path, ori_shape=size))
    return dict(inputs=dict(img=image, depth=valid * 2.0, valid=valid), data_samples=info)


def test_labels_and_depth_of_one_picture_come_together():
    frames = read_frames([
        [labelled('/a/1.jpg'), labelled('/a/2.jpg')],
        [rgbd('/a/2.jpg', size=(16, 24)), rgbd('/a/3.jpg')],
    ])  # fmt: skip
    assert [f.path for f in frames] == ['/a/1.jpg', '/a/2.jpg', '/a/3.jpg']
    assert frames[1].image.shape == (3, 8, 12)  # of the first data set
    ((classes, labels),), depth = label_targets(frames).items(), depth_targets(frames)
    assert classes == ()
    assert (labels.indices, depth.indices) == ([0, 1], [1, 2])
    assert labels.valid[0].tolist() == [[True, False], [True, True]]
    assert (depth.kind, depth.valid[0].sum()) == ('metric', 15 * 24)


class Named(list):
    """Samples of a data set that names its classes."""

    def __init__(self, classes, samples):
        super().__init__(samples)
        self.metainfo = dict(classes=classes)


def test_labels_of_two_kinds_do_not_meet():
    """Of 13 and of 40 classes, say; the same classes of other frames are one kind."""
    coarse, fine = Named(('a', 'b', 'c'), [labelled('/a/1.jpg')]), labelled('/a/1.jpg')
    fine['data_samples'].gt_sem_seg.data = torch.tensor([[[3, 3], [4, 255]]])
    more = Named(('a', 'b', 'c'), [labelled('/a/2.jpg')])
    frames = read_frames([coarse, Named(tuple('abcde'), [fine]), more])
    assert len(frames) == 2
    found = label_targets(frames)
    assert list(found) == [('a', 'b', 'c'), tuple('abcde')]
    assert found['a', 'b', 'c'].indices == [0, 1]
    assert found['a', 'b', 'c'].values[0].tolist() == [[1, 255], [0, 2]]
    assert found[tuple('abcde')].indices == [0]
    assert found[tuple('abcde')].values[0].tolist() == [[3, 3], [4, 255]]


def test_pictures_that_were_cropped_apart():
    with pytest.raises(ValueError, match=r'/a/1\.jpg: read as 8x12 and as 8x20'):
        read_frames([[labelled('/a/1.jpg')], [rgbd('/a/1.jpg', size=(8, 20))]])


def test_kinds_of_depth_are_not_mixed():
    frames = read_frames([[rgbd('/a/1.jpg'), rgbd('/a/2.jpg', 'relative')]])
    with pytest.raises(ValueError, match='several kinds'):
        depth_targets(frames)


def write(root, records, cameras=None):
    (root / 'rgb').mkdir()
    (root / 'frames.jsonl').write_text('\n'.join(map(json.dumps, records)) + '\n')
    if cameras:
        (root / 'cameras.json').write_text(json.dumps(cameras))


def test_cameras_of_generated_rooms(tmp_path):
    intrinsic = [[100, 0, 79.5], [0, 100, 59.5], [0, 0, 1]]
    pose = np.eye(4).tolist()
    name = 'room_0003_view_01'
    write(tmp_path, [{'name': name, 'intrinsic': intrinsic, 'camera_to_world': pose}])
    camera = read_camera(f'{tmp_path}/rgb/{name}.jpg', (120, 160), (240, 320))
    # Twice the pixels; the corner of the first pixel stays where it is.
    np.testing.assert_allclose(camera.intrinsic, [[200, 0, 159.5], [0, 200, 119.5], [0, 0, 1]])
    assert camera.scene == f'{tmp_path}/room_0003'
    np.testing.assert_array_equal(camera.to_world, np.eye(4))
    assert read_camera(f'{tmp_path}/rgb/other.jpg', (120, 160), (120, 160)) is None


def test_cameras_of_scannet_and_of_seven_scenes(tmp_path):
    """ScanNet has intrinsics by scan, of its own picture size; 7-Scenes has none."""
    pose = np.eye(4).tolist()
    calibration = np.diag([1000.0, 1000, 1, 1])
    calibration[:2, 2] = 647.5, 483.5
    cameras = {'scene0000_00': {'colour': {'size': [1296, 968], 'intrinsic': calibration.tolist()}}}
    names = ('scene0000_00/000000', 'chess/seq-01/000000')
    write(tmp_path, [{'name': n, 'camera_to_world': pose} for n in names], cameras)
    camera, without = (
        read_camera(f'{tmp_path}/rgb/{n}.jpg', (240, 320), (242, 324)) for n in names
    )
    assert camera.scene.endswith('/scene0000_00')
    np.testing.assert_allclose(camera.intrinsic, [[250, 0, 161.5], [0, 250, 120.5], [0, 0, 1]])
    assert without.intrinsic is None
    assert without.to_world is not None


def test_the_field_of_view_comes_from_the_intrinsics(tmp_path):
    """A slanted wall through another lens has another slant."""
    write(tmp_path, [{'name': 'a', 'intrinsic': [[6, 0, 5.5], [0, 6, 3.5], [0, 0, 1]]}])
    frame = read_frames([[rgbd(f'{tmp_path}/rgb/a.jpg')]])[0]
    assert frame.field_of_view(57) == pytest.approx(90)
    inverse = 0.5 + 0.02 * torch.arange(12.0).repeat(8, 1)
    frame.depth = 1 / inverse
    found = normal_targets([frame], fov=57)
    frame.camera = None
    other = normal_targets([frame], fov=90)
    torch.testing.assert_close(found.values[0], other.values[0])
    narrow = normal_targets([frame], fov=30)
    assert (narrow.values[0][0, 4, 6] - other.values[0][0, 4, 6]).abs() > 0.1


@pytest.mark.parametrize('size', [(72, 128), (96, 128), (90, 90)])
@pytest.mark.parametrize('known', [True, False])
def test_a_resize_that_changes_the_aspect_changes_no_normal(tmp_path, size, known):
    """A floor seen by a camera of 16:9, whose axis is off the centre where it is known."""
    focal, (cx, cy) = 90.0, ((70.0, 30.0) if known else (63.5, 35.5))
    if known:
        write(tmp_path, [{'name': 'a', 'intrinsic': [[focal, 0, cx], [0, focal, cy], [0, 0, 1]]}])
    normal = np.array([0.1, -0.8, -0.6]) / np.linalg.norm([0.1, -0.8, -0.6])
    rows, columns = (np.arange(n) + 0.5 for n in size)
    v, u = np.meshgrid(
        (rows * 72 / size[0] - 0.5 - cy) / focal,
        (columns * 128 / size[1] - 0.5 - cx) / focal,
        indexing='ij',
    )
    depth = -1 / (normal[0] * u + normal[1] * v + normal[2])
    sample = rgbd(f'{tmp_path}/rgb/a.jpg', size=size)
    sample['data_samples'].set_metainfo(dict(ori_shape=(72, 128)))
    sample['inputs']['depth'] = torch.tensor(np.where(depth > 0, depth, 0)[None]).float()
    fov = 2 * math.degrees(math.atan(64 / focal))
    found = normal_targets(read_frames([[sample]]), fov=fov)
    normals = found.values[0][:, found.valid[0]].double()
    assert normals.shape[1] > 1000
    cosine = (normals * torch.tensor(normal)[:, None]).sum(0).clamp(-1, 1)
    assert torch.rad2deg(cosine.acos()).mean() < 1.5  # float16


def test_a_camera_is_found_beside_a_link(tmp_path):
    write(tmp_path, [{'name': 'a', 'intrinsic': [[6, 0, 5.5], [0, 6, 3.5], [0, 0, 1]]}])
    (tmp_path / 'rgb').rename(tmp_path / 'elsewhere')
    (tmp_path / 'rgb').symlink_to(tmp_path / 'elsewhere')
    (frame,) = read_frames([[rgbd(f'{tmp_path}/rgb/a.jpg')]])
    assert frame.field_of_view(57) == pytest.approx(90)
