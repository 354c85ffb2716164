"""Every family of mmseg's and mmdet's configs with a ResNet-50, after the swap of its backbone.

docs/swapping_families.md says which works and which does not; each of its rows is a test here.
"""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper

from mmmask3d.engine.run_config import load_config
from mmmask3d.models import Mask3DPyramid
from mmmask3d.swap import proof as swap_proof
from mmmask3d.swap.backbone import SwapError
from mmmask3d.swap.config import base_of, read_config, render_config
from mmmask3d.swap.plan import SwapOptions, plan_swap, refine_swap

ROOT = Path(__file__).parents[2]
ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
SIZE = (96, 128)
# Heads with kernels that need a larger map: 3x3 on stride 128, and 8x4 on stride 32.
SIZES = {'mmdet/ddod': (384, 384), 'mmdet/reid': (256, 128)}
# What a family that cannot work is expected to say, by the category in the documentation.
ERRORS = {
    'reaches into the ResNet': r"'Mask3DPyramid' object has no attribute '(stem|num_branch)'",
    'operator without CPU kernel': 'implementation for device cpu not found',
    'wants other inputs': "'DetDataSample' object has no attribute 'org_width'",
}
BUILD = swap_proof.build_alone
WORKS = ('trains, predicts', 'predicts', 'trains')


def documented_rows():
    """(library/family, config, result) of the table."""
    text = (ROOT / 'docs/swapping_families.md').read_text()
    return re.findall(r'^\| (mm\w+/\S+) \| `(\S+)` \| (.+?) \|$', text, re.M)


ROWS = documented_rows()
FIRST = {}
for _family, _config, _result in ROWS:
    FIRST.setdefault(_family, (_config, _result))


@pytest.fixture(scope='module', autouse=True)
def needs_ops():
    pytest.importorskip('mmcv._ext', reason='mmdet needs mmcv with compiled ops')


@pytest.mark.parametrize('library', ['mmseg', 'mmdet'])
def test_every_family_is_listed(library, find_families):
    listed = {f: config for f, (config, _) in FIRST.items() if f.startswith(library + '/')}
    assert listed == find_families(library)


def test_counts_in_the_documentation():
    text = (ROOT / 'docs/swapping_families.md').read_text()
    for library in ('mmseg', 'mmdet'):
        results = [r for f, (_, r) in FIRST.items() if f.startswith(library + '/')]
        works = sum(result in ('trains, predicts', 'predicts') for result in results)
        assert f'{works} of {len(results)} families of {library}' in text
    for family, (_, result) in FIRST.items():
        assert result in WORKS or result.split(':')[0] in {*ERRORS, 'needs a download'}, family


def swapped(family, config, config_root, r50_backbones, make_small, tmp_path, monkeypatch):
    """Plan, swapped and shrunken config, and path of the backbone."""
    library = family.split('/')[0]
    source = str(config_root(library) / config)
    cfg = read_config(source)
    (path, *_) = r50_backbones(cfg)
    plan = plan_swap(cfg, SwapOptions(arch=ARCH, path=path, drop_path_rate=0.0))
    written = tmp_path / 'swapped.py'
    written.write_text(render_config(plan, base_of(source, written), None))
    new = load_config(written)
    make_small(new.model)
    if 'teacher_config' in cfg.model:  # a path relative to the configs' folder
        monkeypatch.chdir(config_root(library).parent)
    return cfg, plan, new, path


class Watch:
    """The models that a proof builds; compares the priors of their heads with the maps they get.

    Attributes:
        size: of the padded image that the backbone is given.
        models: what was built.
        heads: names of the kinds of heads whose priors were compared.
    """

    def __init__(self):
        self.size, self.models, self.heads = None, [], set()

    def build(self, cfg, path=None):
        model = BUILD(cfg, path)
        swapped = {n: m for n, m in model.named_modules() if isinstance(m, Mask3DPyramid)}
        around = tuple(name.rpartition('.')[0] for name in swapped)  # the models they belong to
        for module in swapped.values():
            module.register_forward_pre_hook(self.see_size)
        for name, module in model.named_modules():
            priors = getattr(module, 'prior_generator', None)
            if hasattr(priors, 'strides') and name.startswith(around):
                module.register_forward_pre_hook(self.check_priors)
        self.models.append(model)
        return model

    def see_size(self, _, inputs):
        self.size = inputs[0].shape[-2:]

    def check_priors(self, head, inputs):
        maps = inputs[0]
        pairs = [s if isinstance(s, tuple | list) else (s, s) for s in head.prior_generator.strides]
        # YOLACT divides its nominal image by the cells of a map, which is no whole number.
        whole = all(isinstance(side, int) for pair in pairs for side in pair)
        if whole and isinstance(maps, tuple | list) and len(maps) == len(pairs):
            found = [tuple(x.shape[-2:]) for x in maps]
            height, width = self.size
            assert found == [(-(-height // y), -(-width // x)) for x, y in pairs]
            self.heads.add(type(head).__name__)


@pytest.fixture
def watch(monkeypatch):
    found = Watch()
    monkeypatch.setattr(swap_proof, 'build_alone', found.build)
    return found


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize(
    ('family', 'config', 'result'), ROWS, ids=[f'{f}-{Path(c).stem}' for f, c, _ in ROWS]
)
def test_swapped(
    family, config, result, config_root, r50_backbones, make_small, tmp_path, monkeypatch, watch
):
    arguments = config_root, r50_backbones, make_small, tmp_path, monkeypatch
    if result.startswith('needs a download'):  # the config is made, the model cannot be
        _, plan, new, _ = swapped(family, config, *arguments)
        assert new.model.backbone.out_strides == plan.levels.strides == (4, 8, 16, 32)
        return
    if result not in WORKS:
        with pytest.raises(Exception, match=ERRORS[result.split(':')[0]]):
            prove(family, *swapped(family, config, *arguments))
        return
    cfg, plan, new, path = swapped(family, config, *arguments)
    proof = prove(family, cfg, plan, new, path, predict=result != 'trains')
    (model,) = watch.models
    if result == 'predicts':
        assert proof.losses == {}
        return
    if family in ('mmdet/retinanet', 'mmdet/faster_rcnn', 'mmdet/fcos', 'mmdet/yolof'):
        assert watch.heads  # the comparison takes place
    assert proof.grad_norm > 0
    assert all(torch.isfinite(torch.tensor(loss)) for loss in proof.losses.values())
    check_optimiser(model, plan, cfg, proof)


def prove(family, cfg, plan, new, path, predict=True):
    size = SIZES.get(family, SIZE)
    proof = swap_proof.prove_swap(new, plan.old_backbone, path, size, predict=predict)
    for image, maps in proof.shapes.items():
        strides = [plan.levels.strides[i] for i in plan.levels.indices]
        assert [m[1:] for m in maps] == [
            tuple(-(-side // stride) for side in image) for stride in strides
        ]
    return proof


def check_optimiser(model, plan, cfg, proof):
    """Our constructor takes what the plan kept; lower layers have lower rates."""
    refine_swap(plan, cfg, proof)
    (wrapper,) = [c.new for c in plan.changes if c.key == 'optim_wrapper']
    wrapper = ConfigDict({k: v for k, v in wrapper.items() if k not in ('loss_scale', 'dtype')})
    wrapper.type = 'OptimWrapper'  # AmpOptimWrapper wants a GPU
    optimizer = build_optim_wrapper(model, wrapper).optimizer
    rates = {id(p): group['lr'] for group in optimizer.param_groups for p in group['params']}
    by_name = {n: rates[id(p)] for n, p in model.named_parameters() if id(p) in rates}
    encoder = {n: v for n, v in by_name.items() if '.vit.' in n}
    of_patches = [v for n, v in encoder.items() if n.endswith('patch_embed.projection.weight')]
    assert of_patches
    assert set(of_patches) == {min(encoder.values())}
    assert max(of_patches) < max(encoder.values()) == wrapper.optimizer.lr
    wanted = bool(proof.unused) and not cfg.get('find_unused_parameters')
    assert any(c.key.endswith('find_unused_parameters') for c in plan.changes) == wanted


def test_colours_that_reach_the_transformer_of_a_caffe_config(
    config_root, r50_backbones, make_small, tmp_path, monkeypatch, watch
):
    """A BGR image of known values arrives as normalised RGB; before, it was BGR minus a mean."""
    family, config = 'mmdet/retinanet', 'retinanet/retinanet_r50-caffe_fpn_1x_coco.py'
    arguments = config_root, r50_backbones, make_small, tmp_path, monkeypatch
    cfg, _, new, path = swapped(family, config, *arguments)
    assert cfg.model.data_preprocessor.std == [1.0, 1.0, 1.0]
    monkeypatch.undo()
    blue, green, red = 10, 100, 250
    image = torch.tensor([blue, green, red], dtype=torch.uint8)[:, None, None].expand(3, 64, 96)
    batch = dict(inputs=[image], data_samples=None)

    seen = []
    model = swap_proof.build_alone(new, path)
    model.backbone.vit.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    model.backbone(model.data_preprocessor(batch)['inputs'])
    expected = [(red - 123.675) / 58.395, (green - 116.28) / 57.12, (blue - 103.53) / 57.375]
    (pixels,) = seen
    torch.testing.assert_close(pixels[0, :, 0, 0], torch.tensor(expected), rtol=1e-5, atol=1e-5)

    before = swap_proof.build_alone(cfg).data_preprocessor(batch)['inputs']
    expected = torch.tensor([blue - 103.530, green - 116.280, red - 123.675])
    torch.testing.assert_close(before[0, :, 0, 0], expected)


def test_a_backbone_that_returns_more_than_maps(config_root):
    """The recursive pyramid of DetectoRS takes the image from its backbone."""
    cfg = read_config(str(config_root('mmdet') / 'detectors/cascade-rcnn_r50-rfp_1x_coco.py'))
    with pytest.raises(SwapError, match=r'DetectoRS_ResNet gives 5 outputs for out_indices'):
        plan_swap(cfg, SwapOptions(arch=ARCH))
