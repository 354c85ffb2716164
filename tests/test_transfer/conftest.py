"""The config families that mmseg and mmdet ship, made small."""

import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from mmengine.config import Config

from mmmask3d.swap.backbone import nested_backbones

# Where the shortest name stands for something else than the family: a variant whose backbone is no
# ResNet-50, or whose operators have no CPU kernel.
_PREFERRED = {
    'mmdet/cascade_rpn': 'cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco',
    'mmdet/dcn': 'faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco',
    'mmdet/dcnv2': 'faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco',
    'mmdet/detectors': 'cascade-rcnn_r50-sac_1x_coco',
    'mmdet/lad': 'lad_r50-paa-r101_fpn_2xb8_coco_1x',
}
_LARGEST = dict(
    num_convs=1,
    stacked_convs=1,
    num_shared_convs=1,
    num_queries=30,
    num_proposals=10,
    num_layers=2,
    feedforward_channels=64,
    fc_out_channels=32,
    nms_pre=50,
    nms_post=30,
    max_per_img=10,
    max_num=30,
)

# What another part of the model states as well, elsewhere.
_FIXED = {
    ('CondInstMaskHead', 'num_layers'),
    ('BoxInstMaskHead', 'num_layers'),
    ('SCNetBBoxHead', 'fc_out_channels'),
}


def _configs_of(library):
    (package,) = importlib.util.find_spec(library).submodule_search_locations
    return Path(package) / '.mim' / 'configs'


@pytest.fixture(scope='session')
def config_root():
    """Function: the folder of the configs that a library ships."""
    return _configs_of


@pytest.fixture(scope='session')
def r50_backbones():
    """Function: paths of the ResNets of 50 layers in a config, that of the student first."""

    def find(cfg):
        found = [
            where
            for where, backbone in nested_backbones(cfg.get('model'))
            if backbone.get('depth') == 50
        ]
        return [where for where in found if 'teacher' not in where and '.neck.' not in where]

    return find


@pytest.fixture(scope='session')
def find_families(r50_backbones):
    """Function: the representative of each folder that holds a config with a ResNet-50."""

    def mentions(path, seen):
        """Whether a config or one that it inherits from speaks of 50 layers."""
        if path in seen or not path.is_file():
            return False
        seen.add(path)
        text = path.read_text()
        inherited = re.search(r'^_base_ *= *(\[.*?\]|[\'"].*?[\'"])', text, re.S | re.M)
        bases = re.findall(r'[\'"](.+?\.py)[\'"]', inherited[1]) if inherited else []
        return bool(re.search(r'depth=50\b', text)) or any(
            mentions((path.parent / base).resolve(), seen) for base in bases
        )

    def find(library):
        root, found = _configs_of(library), {}
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            family = f'{library}/{folder.name}'
            if folder.name in ('_base_', 'common'):
                continue
            candidates = [p for p in folder.rglob('*.py') if '_base_' not in p.parts]
            names_it = {p: 'r50' in p.stem or 's50' in p.stem for p in candidates}
            if any(names_it.values()):
                candidates = [p for p in candidates if names_it[p]]
            wanted = _PREFERRED.get(family)
            for path in sorted(candidates, key=lambda p: (p.stem != wanted, len(p.stem), p)):
                if mentions(path.resolve(), set()):
                    try:
                        cfg = Config.fromfile(path)
                    except FileNotFoundError:  # inherits from a file that is not shipped
                        continue
                    if r50_backbones(cfg):
                        found[family] = path.relative_to(root).as_posix()
                        break
        return found

    return find


@pytest.fixture(scope='session')
def make_small():
    """Function that shrinks heads and necks in place: fewer layers, queries, samples, boxes.

    Thresholds become 0, so that untrained models predict boxes and masks too.
    """

    def shrink(value):
        if isinstance(value, list | tuple):
            for entry in value:
                shrink(entry)
            return
        if not isinstance(value, Mapping):
            return
        kind = str(value.get('type'))
        if kind.endswith('Sampler') and value.get('num', 0) > 0:
            value['num'] = 16
        for key, entry in list(value.items()):
            if 'backbone' in key:
                continue
            fixed = (kind, key) in _FIXED
            number = isinstance(entry, int) and not isinstance(entry, bool) and entry > 0
            if key in _LARGEST and number and not fixed:
                value[key] = min(entry, _LARGEST[key])
            elif key == 'num_classes' and number and entry > 1000:
                value[key] = 20
            elif key in ('score_thr', 'obj_score_thr') and isinstance(entry, float):
                value[key] = 0.0
            elif key == 'clip_border' and kind.endswith('Coder'):
                value[key] = True  # mmdet cannot paste masks outside the image on a CPU
            elif key != 'type':
                shrink(entry)

    return shrink
