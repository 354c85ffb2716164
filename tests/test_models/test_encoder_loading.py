import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model.weight_init import PretrainedInit
from mmpretrain.models import VisionTransformer
from safetensors.torch import save_file
from torch import nn

from mmmask3d.checkpoints.files import UnsafeCheckpointError
from mmmask3d.models import Mask3DPyramid, Mask3DViT
from mmmask3d.models.encoder_loading import encoder_state, load_encoder
from mmmask3d.models.pos_embed import resize_to_grid
from mmmask3d.registry import MODELS
from mmmask3d.weights.export import write_encoder

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)


def encoder(**kwargs):
    cfg = dict(type='Mask3DViT', arch=ARCH, img_size=(24, 40), patch_size=8)
    return MODELS.build({**cfg, **kwargs})


@pytest.fixture
def weights():
    """Weights of a plain 32x32 ViT (4x4 patches), none at its usual starting value."""
    torch.manual_seed(5)
    model = VisionTransformer(arch=ARCH, img_size=32, patch_size=8, out_type='featmap')
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    return model.state_dict()


def assert_loaded(model, weights):
    for name, value in model.state_dict().items():
        expected = weights[name]
        if name == 'pos_embed':
            expected = resize_to_grid(expected, (4, 4), model.grid_size)
        assert torch.equal(value, expected), name


@pytest.fixture(params=['bare', 'state_dict', 'backbone', 'safetensors'])
def path(request, weights, tmp_path):
    if request.param == 'safetensors':
        file = tmp_path / 'encoder.safetensors'
        save_file({k: v.contiguous() for k, v in weights.items()}, str(file))
        return str(file)
    file = str(tmp_path / 'weights.pth')
    if request.param == 'backbone':  # of a whole pre-trainer, MAE's for instance
        weights = {
            **{f'backbone.{k}': v for k, v in weights.items()},
            'neck.mask_token': torch.zeros(1, 1, 8),
        }
    torch.save(weights if request.param == 'bare' else dict(state_dict=weights, meta={}), file)
    return file


def test_given_weights_fill_the_encoder(path, weights):
    model = encoder(init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    assert_loaded(model, weights)


@pytest.mark.parametrize('as_list', [False, True])
def test_given_weights_stay_loaded_inside_the_pretrainer(path, weights, as_list, model_cfg):
    init = dict(type='Pretrained', checkpoint=path)
    cfg = model_cfg(backbone=dict(init_cfg=[init] if as_list else init))
    cfg['init_cfg'] = dict(type='Constant', layer='Linear', val=0.5)  # reaches every linear layer
    model = MODELS.build(cfg)
    model.init_weights()
    assert_loaded(model.backbone, weights)
    model.init_weights()
    assert_loaded(model.backbone, weights)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer.step()
    assert_loaded(model.backbone, weights)


def test_class_instead_of_name_is_the_same(weights, tmp_path):
    file = str(tmp_path / 'weights.pth')
    torch.save(weights, file)
    model = encoder(init_cfg=dict(type=PretrainedInit, checkpoint=file))
    model.init_weights()
    assert_loaded(model, weights)


def test_other_initialisers_are_run(weights):
    model = encoder(init_cfg=dict(type='Constant', layer='LayerNorm', val=0.25))
    model.init_weights()
    assert torch.equal(model.ln1.weight, torch.full((48,), 0.25))


def save(tmp_path, content):
    file = str(tmp_path / 'other.pth')
    torch.save(content, file)
    return file


@pytest.mark.parametrize(
    ('arch', 'patch', 'message'),
    [
        ({**ARCH, 'num_layers': 3}, 8, r'unknown here \(\d+\): layers\.2'),
        ({**ARCH, 'num_layers': 1}, 8, r'missing in the file \(\d+\): layers\.1'),
        ({**ARCH, 'embed_dims': 96}, 8, r'cls_token \(1, 1, 96\) \(here \(1, 1, 48\)\)'),
        ({**ARCH, 'feedforward_channels': 48}, 8, r'of another shape \(6\): layers\.0\.ffn'),
    ],
)
def test_another_architecture_is_refused_and_listed(arch, patch, message, tmp_path):
    file = save(tmp_path, Mask3DViT(arch=arch, img_size=(24, 40), patch_size=patch).state_dict())
    model = encoder(init_cfg=dict(type='Pretrained', checkpoint=file))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RuntimeError, match=message) as caught:
        model.init_weights()
    assert str(file) in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.fixture
def said(monkeypatch):
    """What is logged: mmengine's logger writes to the stream that it found first."""
    lines = []
    where = 'mmmask3d.models.encoder_loading.print_log'
    monkeypatch.setattr(where, lambda message, **_: lines.append(message))
    return lines


@pytest.mark.parametrize(('theirs', 'ours'), [(14, 16), (16, 32)])
def test_patches_of_another_size_are_resampled(theirs, ours, tmp_path, said):
    """Enlarged patches give the tokens that they gave before."""
    torch.manual_seed(0)
    source = Mask3DViT(arch=ARCH, img_size=(3 * theirs, 5 * theirs), patch_size=theirs)
    file = save(tmp_path, source.state_dict())
    model = Mask3DViT(
        arch=ARCH, img_size=(3 * ours, 5 * ours), patch_size=ours,
        init_cfg=dict(type='Pretrained', checkpoint=file),
    )  # fmt: skip
    model.init_weights()
    assert f'resampled from patches of {theirs} pixels to {ours}' in ' '.join(said)
    patches = torch.randn(4, 3, theirs, theirs)
    larger = F.interpolate(patches, size=(ours, ours), mode='bicubic', antialias=True)
    expected = source.patch_embed.projection(patches)
    torch.testing.assert_close(model.patch_embed.projection(larger), expected, rtol=0, atol=1e-4)
    assert expected.abs().max() > 0.1
    assert torch.equal(model.pos_embed, source.pos_embed)


def test_patches_that_are_no_squares_are_refused(tmp_path):
    state = encoder().state_dict()
    state['patch_embed.projection.weight'] = torch.ones(48, 3, 4, 8)
    file = save(tmp_path, state)
    with pytest.raises(RuntimeError, match=r'projection\.weight \(48, 3, 4, 8\) \(here'):
        encoder(init_cfg=dict(type='Pretrained', checkpoint=file)).init_weights()


@pytest.mark.parametrize('resize', [dict(offset=0.1), None])
def test_another_resize_of_positions_than_the_files_is_said(resize, tmp_path, said):
    backbone = dict(type='mmmask3d.Mask3DViT', arch=ARCH, pos_embed_resize=dict(offset=0.1))
    content = dict(state_dict=encoder().state_dict(), meta=dict(backbone=backbone))
    init_cfg = dict(type='Pretrained', checkpoint=save(tmp_path, content))
    encoder(init_cfg=init_cfg, pos_embed_resize=resize).init_weights()
    assert ('the features differ a little' in ' '.join(said)) == (resize is None)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_the_message_says_what_the_file_was_made_for(weights, tmp_path, suffix):
    file = str(tmp_path / f'encoder{suffix}')
    backbone = dict(type='mmmask3d.Mask3DViT', arch=ARCH, patch_size=8, final_norm=False)
    meta = dict(format='mmmask3d-encoder-1', backbone=backbone, arch=ARCH, patch_grid=(4, 4))
    write_encoder(file, {k: v for k, v in weights.items() if not k.startswith('ln1')}, meta)
    model = encoder(init_cfg=dict(type='Pretrained', checkpoint=file))
    with pytest.raises(RuntimeError, match=r'missing .*ln1\.weight(.|\n)*final_norm=False'):
        model.init_weights()
    encoder(final_norm=False, init_cfg=dict(type='Pretrained', checkpoint=file)).init_weights()
    other = encoder(
        arch={**ARCH, 'num_heads': 6},
        final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint=file),
    )
    with pytest.raises(RuntimeError, match='has 3 attention heads, this Mask3DViT has 6'):
        other.init_weights()


@pytest.mark.parametrize('recorded', ['backbone', 'cfg'])
def test_what_no_shape_tells_is_compared_where_it_is_recorded(weights, tmp_path, recorded):
    backbone = dict(type='Mask3DViT', arch=ARCH, img_size=32, patch_size=8)
    for change, message in (
        (dict(arch={**ARCH, 'num_heads': 6}), 'has 6 attention heads'),
        (dict(norm_cfg=dict(type='LN', eps=1e-3)), r'norms with eps=0\.001'),
    ):
        settings = {**backbone, **change}
        meta = dict(backbone=settings)
        if recorded == 'cfg':
            meta = dict(cfg=Config(dict(model=dict(backbone=settings))).pretty_text)
        file = save(tmp_path, dict(state_dict=weights, meta=meta))
        model = encoder(init_cfg=dict(type='Pretrained', checkpoint=file))
        with pytest.raises(RuntimeError, match=message):
            model.init_weights()


def test_paths_may_be_paths(weights, tmp_path):
    model = encoder()
    load_encoder(model, Path(save(tmp_path, weights)))
    assert_loaded(model, weights)


@pytest.mark.parametrize(
    ('content', 'error', 'message'),
    [
        ({'conv1.weight': torch.zeros(2)}, RuntimeError, r'unknown here \(1\): conv1\.weight'),
        ({'meta': {}, 'state_dict': {}}, ValueError, 'found no tensor'),
        (
            {'model': {'blocks.0.norm1.weight': torch.zeros(2)}},
            ValueError,
            r'state_dict.* keys model\.',
        ),
    ],
)
def test_files_that_are_something_else(content, error, message, tmp_path):
    model = encoder(init_cfg=dict(type='Pretrained', checkpoint=save(tmp_path, content)))
    with pytest.raises(error, match=message):
        model.init_weights()


def test_wrong_prefix_names_what_is_there(weights, tmp_path):
    file = save(tmp_path, dict(state_dict={f'student.{k}': v for k, v in weights.items()}))
    wrong = encoder(init_cfg=dict(type='Pretrained', checkpoint=file, prefix='teacher'))
    with pytest.raises(ValueError, match=r"starts with 'teacher\.'.*student\.cls_token"):
        wrong.init_weights()
    right = encoder(init_cfg=dict(type='Pretrained', checkpoint=file, prefix='student'))
    right.init_weights()
    assert_loaded(right, weights)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, 'w')


def test_a_file_that_needs_unpickling_is_refused(weights, tmp_path, model_cfg):
    made = tmp_path / 'made'
    file = save(tmp_path, dict(state_dict=weights, extra=Payload(str(made))))
    model = MODELS.build(
        model_cfg(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint=file)))
    )
    with pytest.raises(UnsafeCheckpointError, match=r'other\.pth'):
        model.init_weights()
    assert not made.exists()


def test_missing_file_is_named(tmp_path):
    model = encoder(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'no.pth')))
    with pytest.raises(FileNotFoundError, match=r'no\.pth'):
        model.init_weights()


def test_encoder_of_a_whole_pretrainer_keeps_its_grid(build_model, tmp_path):
    whole = build_model(backbone=dict(img_size=(32, 72)))  # 4x9
    file = save(tmp_path, dict(state_dict=whole.state_dict(), meta={}))
    model = encoder(img_size=(48, 48), init_cfg=dict(type='Pretrained', checkpoint=file))
    model.init_weights()
    expected = resize_to_grid(whole.backbone.pos_embed, (4, 9), (6, 6))
    assert torch.equal(model.pos_embed, expected)


def test_encoder_of_a_trained_detector_is_found_in_its_pyramid(tmp_path):
    detector = nn.Module()
    detector.backbone = Mask3DPyramid(arch=ARCH, patch_size=8, img_size=(32, 72))  # 4x9
    file = save(tmp_path, dict(state_dict=detector.state_dict(), meta={}))
    model = encoder(img_size=(48, 48), init_cfg=dict(type='Pretrained', checkpoint=file))
    model.init_weights()
    theirs = detector.backbone.vit
    assert torch.equal(model.pos_embed, resize_to_grid(theirs.pos_embed, (4, 9), (6, 6)))
    assert torch.equal(model.layers[1].ffn.layers[1].weight, theirs.layers[1].ffn.layers[1].weight)


def test_grid_in_the_metadata_of_safetensors_is_read(tmp_path):
    source = encoder(img_size=(32, 72))
    source.init_weights()
    file = str(tmp_path / 'encoder.safetensors')
    save_file(dict(source.state_dict()), file, metadata=dict(patch_grid=json.dumps([4, 9])))
    model = encoder(img_size=(48, 48), init_cfg=dict(type='Pretrained', checkpoint=file))
    model.init_weights()
    assert torch.equal(model.pos_embed, resize_to_grid(source.pos_embed, (4, 9), (6, 6)))


def test_encoder_part_has_no_prefix_and_carries_the_grid():
    state = OrderedDict({'backbone.a': torch.ones(1), 'head.b': torch.ones(1)})
    state._metadata = OrderedDict({'backbone': dict(patch_grid=(4, 9))})
    part = encoder_state(dict(state_dict=state))
    assert list(part) == ['a']
    assert part._metadata == {'': {'patch_grid': (4, 9)}}
