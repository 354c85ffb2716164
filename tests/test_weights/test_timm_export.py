"""Encoders of timm leave a run with timm's own names, and load wherever an encoder stands."""

import json

import pytest
import timm
import torch
from mmengine.config import Config
from safetensors import safe_open
from timm.layers import resample_abs_pos_embed

from mmmask3d.apis import get_model
from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.models import Mask3DPyramid, Mask3DViT
from mmmask3d.registry import MODELS
from mmmask3d.weights.publishing import PublishingError, publish

SMALL = dict(embed_dim=48, depth=2, num_heads=3)
KINDS = {
    'mae': 'vit_base_patch16_224.mae',
    'clip': 'vit_base_patch16_clip_224',
    'dinov2-reg': 'vit_small_patch14_reg4_dinov2',
    'dinov3': 'vit_small_patch16_dinov3',
}
every_kind = pytest.mark.parametrize('kind', KINDS)
GRID, SIZE = (3, 5), (24, 40)
STATED = dict(data_license='own frames, CC BY 4.0', terms='Apache-2.0')


def backbone_of(kind, **options):
    given = dict(type='mmmask3d.TimmViT', model=KINDS[kind], img_size=SIZE, patch_size=8)
    return {**given, 'model_args': SMALL, **options}


def config_of(backbone):
    return dict(
        default_scope='mmmask3d',
        model=dict(
            type='MaskedRGBD',
            backbone=backbone,
            fusion=dict(type='AddFusion', embed_dims=16),
            decoders=dict(depth=dict(type='DepthDecoder', num_layers=1, num_heads=2)),
            heads=dict(depth=dict(type='DepthHead', loss=dict(type='DepthL2Loss'))),
        ),
        train_dataloader=dict(
            batch_size=4, dataset=dict(type='RGBDDataset', data_root='mine', pipeline=[])
        ),
    )


@pytest.fixture
def run(tmp_path):
    """Function that writes the checkpoint of a run; returns its path and the encoder."""

    def write(kind, inside=lambda encoder: encoder, **options):
        torch.manual_seed(0)
        config = config_of(inside(backbone_of(kind)))
        model = MODELS.build(config['model'])
        with torch.no_grad():
            for p in model.parameters():
                p.add_(torch.randn(p.shape) * 0.1)
        config['model']['backbone'].update(options)
        path = str(tmp_path / 'epoch_2.pth')
        meta = dict(cfg=Config(config).pretty_text, epoch=2)
        torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
        return path, model.eval().backbone

    return write


@pytest.fixture
def extract(load_tool):
    return lambda *arguments: load_tool('model_converters/extract_backbone.py').main(
        [str(a) for a in arguments]
    )


@every_kind
@pytest.mark.parametrize('suffix', ['.safetensors', '.pth'])
def test_the_file_fills_timm_timmvit_and_pyramid(kind, suffix, run, extract, tmp_path):
    source, encoder = run(kind)
    out = str(tmp_path / f'encoder{suffix}')
    assert extract(source, out) == 0
    x = torch.rand(1, 3, *SIZE)
    expected = encoder(x)[-1]

    plain = timm.create_model(
        KINDS[kind], num_classes=0, img_size=SIZE, patch_size=8, checkpoint_path=out, **SMALL
    ).eval()
    tokens = plain.forward_features(x)[:, plain.num_prefix_tokens :]
    torch.testing.assert_close(tokens.transpose(1, 2).unflatten(2, GRID), expected)

    pretrained = dict(init_cfg=dict(type='Pretrained', checkpoint=out))
    for options in (pretrained, dict(pretrained=out)):
        ours = MODELS.build(backbone_of(kind, **options))
        ours.init_weights()
        torch.testing.assert_close(ours.eval()(x)[-1], expected)

    pyramid = Mask3DPyramid(
        encoder=backbone_of(kind, **pretrained), out_strides=(8,), out_channels=(8,),
        out_indices=(0,),
    )  # fmt: skip
    pyramid.init_weights()
    torch.testing.assert_close(pyramid.eval().vit(x)[-1], expected)


@every_kind
def test_metadata_say_what_the_file_is(kind, run, extract, tmp_path):
    source, encoder = run(kind)
    assert extract(source, tmp_path / 'e.safetensors') == 0
    with safe_open(tmp_path / 'e.safetensors', 'pt') as file:
        meta = {key: json.loads(value) for key, value in file.metadata().items()}
    assert meta['backbone'] == {**backbone_of(kind), 'img_size': [24, 40]}
    assert meta['arch'] == dict(embed_dims=48, num_layers=2, num_heads=3)
    assert meta['normalisation'] == {k: list(v) for k, v in encoder.normalisation.items()}
    assert (meta['patch_grid'], meta['patch_size'], meta['epoch']) == ([3, 5], [8, 8], 2)


def test_the_models_own_patch_size_is_recorded(run, extract, tmp_path):
    config = backbone_of('dinov2-reg', img_size=(28, 42))
    del config['patch_size']
    source, _ = run('dinov2-reg', lambda _: config)
    assert extract(source, tmp_path / 'e.pth') == 0
    meta = load_checkpoint_file(tmp_path / 'e.pth')['meta']
    assert (meta['backbone']['patch_size'], meta['patch_grid']) == (14, [2, 3])


def test_another_grid_is_that_of_timms_resampling(run, extract, tmp_path):
    source, encoder = run('dinov2-reg')
    assert extract(source, tmp_path / 'e.pth', '--grid', 6, 4) == 0
    assert extract(tmp_path / 'e.pth', tmp_path / 'again.safetensors') == 0
    found = load_checkpoint_file(tmp_path / 'again.safetensors')
    # Registers and class token of DINOv2 have no position of their own there.
    expected = resample_abs_pos_embed(
        encoder.trunk.pos_embed, [6, 4], list(GRID), num_prefix_tokens=0
    )
    torch.testing.assert_close(found['state_dict']['pos_embed'], expected)
    assert json.loads(found['meta']['patch_grid']) == [6, 4]
    assert json.loads(found['meta']['backbone'])['img_size'] == [48, 32]


def test_the_encoder_inside_a_pyramid(run, extract, tmp_path):
    """As a fine-tuned detector holds it."""
    encoder = backbone_of('dinov3')
    config = dict(
        type='mmmask3d.Mask3DPyramid', encoder=encoder, out_strides=(8,), out_channels=(8,)
    )
    pyramid = MODELS.build(dict(config, out_indices=(0,)))
    state = {f'backbone.{k}': v for k, v in pyramid.state_dict().items()}
    meta = dict(cfg=Config(dict(model=dict(type='X', backbone=config))).pretty_text)
    torch.save(dict(state_dict=state, meta=meta), tmp_path / 'detector.pth')
    assert extract(tmp_path / 'detector.pth', tmp_path / 'e.pth') == 0
    ours = MODELS.build(backbone_of('dinov3', pretrained=str(tmp_path / 'e.pth')))
    ours.init_weights()
    torch.testing.assert_close(ours.trunk.state_dict(), pyramid.vit.trunk.state_dict())


@pytest.mark.parametrize(
    ('other', 'message'),
    [
        (
            dict(model='vit_base_patch16_224'),
            'layers of vit_base_patch16_clip_224, this vit_base_patch16_224',
        ),
        (dict(model='vit_base_patch16_clip_quickgelu_224'), 'would be others'),
        (
            dict(model_args={**SMALL, 'num_heads': 4}),
            '3 attention heads.*has 4.*num_heads=3 in its model_args',
        ),
        (dict(model_args={**SMALL, 'depth': 1}), r'unknown here.*blocks\.1'),
    ],
)
def test_another_model_is_refused(other, message, run, extract, tmp_path):
    source, _ = run('clip')
    assert extract(source, tmp_path / 'e.pth') == 0
    for file in (source, str(tmp_path / 'e.pth')):
        with pytest.raises(RuntimeError, match=message):
            MODELS.build(backbone_of('clip', pretrained=file, **other)).init_weights()


def test_another_normalisation_is_refused_and_both_are_named(run, extract, tmp_path):
    source, _ = run('mae')
    assert extract(source, tmp_path / 'e.pth') == 0
    augreg = 'vit_base_patch16_224.augreg_in21k_ft_in1k'
    other = backbone_of('mae', model=augreg, pretrained=str(tmp_path / 'e.pth'))
    with pytest.raises(RuntimeError, match=r'123\.675.*127\.5'):
        MODELS.build(other).init_weights()


def test_a_transformer_of_mmpretrain_says_which_encoder_takes_the_file(run, extract, tmp_path):
    source, _ = run('mae')
    assert extract(source, tmp_path / 'e.pth') == 0
    arch = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=192)
    ours = Mask3DViT(arch=arch, img_size=SIZE, patch_size=8, pretrained=str(tmp_path / 'e.pth'))
    with pytest.raises(
        RuntimeError, match=r"mmmask3d\.TimmViT\(.*model='vit_base_patch16_224\.mae'"
    ):
        ours.init_weights()


@every_kind
@pytest.mark.parametrize('part', ['encoder', 'model'])
def test_published_and_loaded_by_the_zoo(kind, part, run, tmp_path):
    source, encoder = run(kind)
    written = publish(source, tmp_path / 'mine', part=part, **STATED)
    x = torch.rand(1, 3, *SIZE)
    if part == 'model':
        built = get_model(config_of(backbone_of(kind)), pretrained=written['weights']).backbone
    else:
        built = MODELS.build(backbone_of(kind, pretrained=written['weights']))
        built.init_weights()
    torch.testing.assert_close(built.eval()(x)[-1], encoder(x)[-1])
    if part == 'model':
        other = config_of(backbone_of(kind, model_args={**SMALL, 'num_heads': 4}))
        with pytest.raises(RuntimeError, match='attention heads'):
            get_model(other, pretrained=written['weights'])


def test_the_terms_of_timms_weights_bind_what_is_published(run, tmp_path):
    source, _ = run('dinov3', pretrained=True)
    with pytest.raises(PublishingError, match=r'vit_small_patch16_dinov3 of timm.*--init-license'):
        publish(source, tmp_path / 'mine', **STATED)
    written = publish(source, tmp_path / 'mine', init_license='DINOv3 License', **STATED)
    card = json.loads((tmp_path / written['card']).read_text())
    assert card['initialised_from'] == ['vit_small_patch16_dinov3 of timm']
    assert 'pretrained' not in card['backbone']
