"""The text of a swapped config: it reads back as planned, from wherever it inherits."""

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.config import Config

from mmmask3d.swap.backbone import Levels, SwapError
from mmmask3d.swap.config import base_of, describe, read_config, render_config
from mmmask3d.swap.plan import Change, Swap

LEVELS = Levels((4,), (8,), (0,))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**6) | st.floats(-1e3, 1e3) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.sampled_from(['type', 'lr_mult', 'x.y', 'b c']), inner, max_size=3)
    ),
    max_leaves=12,
)  # fmt: skip


def rendered(*changes, base='base.py'):
    return render_config(Swap(LEVELS, {}, list(changes)), base, None)


@settings(max_examples=20, deadline=None)
@given(VALUES)
def test_any_value_is_read_back(value):
    text = rendered(Change('model.neck.entry', None, value, 'why ' * 40))
    scope = {}
    exec(text, scope)
    assert scope['model'] == dict(neck=dict(entry=value))
    assert scope['_base_'] == 'base.py'


def test_dicts_replace_or_merge(tmp_path):
    (tmp_path / 'base.py').write_text(
        "model = dict(backbone=dict(depth=50), data=dict(mean=1, pad=2), pretrained='x')\n"
        'rates = [1, 2]\n'
    )
    text = rendered(
        Change('model.backbone', {}, dict(type='B'), 'Because.', replaces=True),
        Change('model.data', {}, dict(mean=3), 'Because.'),
        Change('model.pretrained', 'x', None, 'Because.'),
        Change('rates', [1, 2], [dict(a=3)], 'Because.', replaces=True),
    )
    path = tmp_path / 'new.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    assert cfg.model.to_dict() == dict(
        backbone=dict(type='B'), data=dict(mean=3, pad=2), pretrained=None
    )
    assert cfg.rates == [dict(a=3)]
    assert text.count('# Because.') == 4
    assert max(map(len, text.splitlines())) <= 100


def test_where_the_base_stands(tmp_path, monkeypatch):
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    source = tmp_path / 'a' / 'mine.py'
    assert base_of(str(source), tmp_path / 'a' / 'new.py') == 'mine.py'
    assert base_of(str(source), tmp_path / 'a' / 'b' / 'new.py') == '../mine.py'
    monkeypatch.chdir(tmp_path)
    assert base_of('a/mine.py', 'new.py') == 'a/mine.py'
    assert base_of('mmdet::x/y.py', 'new.py') == 'mmdet::x/y.py'


def test_configs_of_packages_and_what_is_no_config(tmp_path):
    cfg = read_config('mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-512x1024.py')
    assert cfg.model.type == 'EncoderDecoder'
    with pytest.raises(FileNotFoundError, match=r'nothing\.py: config file not found'):
        read_config('nothing.py')
    with pytest.raises(FileNotFoundError, match='none'):
        read_config('mmseg::fcn/none.py')
    with pytest.raises(SwapError, match='only letters, digits, - and _'):
        read_config('mmdet::gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco.py')
    lazy = tmp_path / 'lazy.py'
    lazy.write_text(
        'from mmengine.config import read_base\nwith read_base():\n    from .a import *\n'
    )
    with pytest.raises(SwapError, match=r'newer kind.*dump'):
        read_config(str(lazy))


def test_plain_mmengine_reads_what_inherits_from_mmdet(tmp_path):
    """Without a line of this project: mm's own tools do no more."""
    pytest.importorskip('mmdet')
    backbone = dict(type='mmmask3d.Mask3DPyramid', arch='deit-tiny')
    change = Change('model.backbone', {}, backbone, 'Why.', replaces=True)
    path = tmp_path / 'new.py'
    path.write_text(rendered(change, base='mmdet::retinanet/retinanet_r50_fpn_1x_coco.py'))
    code = (
        'import sys\n'
        'from mmengine.config import Config\n'
        f'cfg = Config.fromfile({os.fspath(path)!r})\n'
        "assert cfg.model.backbone.type == 'mmmask3d.Mask3DPyramid'\n"
        "assert 'depth' not in cfg.model.backbone and 'custom_imports' not in cfg\n"
        "assert 'mmmask3d' not in sys.modules\n"
        'from mmengine.registry import MODELS, init_default_scope\n'
        "init_default_scope('mmdet')\n"
        "assert MODELS.get('mmmask3d.Mask3DPyramid').__module__.startswith('mmmask3d')\n"
    )
    subprocess.run([sys.executable, '-c', code], check=True)


def test_description():
    swap = Swap(LEVELS, {}, [Change('a.b', 1, None, 'Why.'), Change('c', None, [1], 'So.')], ['n'])
    assert describe(swap) == (
        'a.b\n  - 1\n  + None\n  Why.\nc\n  - not set\n  + [1]\n  So.\nnote: n'
    )
