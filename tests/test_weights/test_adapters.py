"""LoRA leaves a run: added to the encoder's weights, or as an adapter for the same weights."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors import safe_open

from mmmask3d.apis import get_model
from mmmask3d.apis.encoders import build_encoder
from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.models import TimmViT, timm_vit
from mmmask3d.models.adapter import base_sha256
from mmmask3d.registry import MODELS
from mmmask3d.swap.encoder_file import encoder_settings
from mmmask3d.weights.formats import to_timm
from mmmask3d.weights.publishing import publish

SIZE = (24, 40)
ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=192)
SMALL = dict(embed_dim=48, depth=2, num_heads=3)
TIMM = 'vit_small_patch14_reg4_dinov2.lvd142m'
KINDS = {
    'mask3d': dict(type='mmmask3d.Mask3DViT', arch=ARCH),
    'timm': dict(type='mmmask3d.TimmViT', model=TIMM, model_args=SMALL),
}
every_kind = pytest.mark.parametrize('kind', KINDS)


def encoder_of(kind, **options):
    return dict(KINDS[kind], img_size=SIZE, patch_size=8, **options)


def features(encoder):
    x = torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return encoder.eval()(x)[-1]


def filled(config, checkpoint, **options):
    encoder = MODELS.build({**config, 'init_cfg': dict(type='Pretrained', checkpoint=checkpoint)})
    encoder.init_cfg.update(options)
    encoder.init_weights()
    return encoder.eval()


@pytest.fixture
def base(tmp_path):
    """Function that writes the weights of an encoder, and returns the path."""

    def write(kind, seed=0):
        torch.manual_seed(seed)
        # On a square grid and with bare names, as weights are published.
        encoder = MODELS.build(encoder_of(kind) | dict(img_size=32))
        encoder.init_weights()
        with torch.no_grad():
            for p in encoder.parameters():
                p.add_(torch.randn_like(p) * 0.1)
        path = str(tmp_path / f'{kind}-{seed}.pth')
        state = {k.removeprefix('trunk.'): v for k, v in encoder.state_dict().items()}
        torch.save(dict(state_dict=state, meta={}), path)
        return path

    return write


@pytest.fixture
def run(tmp_path, base):
    """Function that writes the checkpoint of a run with LoRA; returns its path and the encoder."""

    def write(kind, inside=lambda encoder: encoder, **options):
        weights = options or dict(init_cfg=dict(type='Pretrained', checkpoint=base(kind)))
        lora = dict(
            type='LoRAEncoder', module=encoder_of(kind, **weights), rank=4, alpha=3,
            targets=[dict(type='qkv'), dict(type='proj', alpha=0.7)],
        )  # fmt: skip
        config = dict(
            default_scope='mmmask3d',
            model=dict(type='MaskedRGBD', backbone=inside(lora)),
            train_dataloader=dict(dataset=dict(type='RGBDDataset', data_root='mine', pipeline=[])),
        )
        backbone = MODELS.build(config['model']['backbone'])
        backbone.init_weights()
        with torch.no_grad():
            for name, p in backbone.named_parameters():
                if '.lora_' in name:
                    p.copy_(torch.randn_like(p) * 0.1)
        model = torch.nn.Module()
        model.backbone = backbone
        path = str(tmp_path / 'epoch_2.pth')
        meta = dict(cfg=Config(config).pretty_text, epoch=2)
        torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
        return path, getattr(backbone, 'vit', backbone)

    return write


@pytest.fixture
def extract(load_tool):
    return lambda *arguments: load_tool('model_converters/extract_backbone.py').main(
        [str(a) for a in arguments]
    )


@every_kind
@pytest.mark.parametrize('pyramid', [False, True])
def test_the_merged_file_is_an_ordinary_encoder_of_the_same_features(
    kind, pyramid, run, extract, tmp_path
):
    def inside(lora):
        return dict(type='Mask3DPyramid', encoder=lora, out_strides=(8,), out_channels=(8,),
                    out_indices=(0,))  # fmt: skip

    source, lora = run(kind, inside if pyramid else lambda lora: lora)
    out = str(tmp_path / 'encoder.safetensors')
    assert extract(source, out) == 0
    expected = features(lora)
    untouched = features(filled(encoder_of(kind), lora.module.init_cfg['checkpoint']))
    assert (expected - untouched).abs().max() > 1e-2
    torch.testing.assert_close(
        features(filled(encoder_of(kind), out)), expected, rtol=1e-5, atol=1e-5
    )
    found = load_checkpoint_file(out)
    assert not [k for k in found['state_dict'] if 'lora' in k or k.startswith('trunk.')]
    assert json.loads(found['meta']['backbone'])['type'] == KINDS[kind]['type']
    assert json.loads(found['meta']['initialised_from']) == [f'{kind}-0.pth']


@every_kind
def test_an_adapter_gives_the_encoder_back_on_its_base(kind, run, base, extract, tmp_path):
    source, lora = run(kind)
    out = str(tmp_path / 'adapter.safetensors')
    assert extract(source, out, '--adapter') == 0
    found = filled(encoder_of(kind), out, base=base(kind))
    torch.testing.assert_close(
        dict(found.state_dict()), dict(lora.merged().state_dict()), rtol=0, atol=0
    )
    # Of another size, the layers are the same and the positions those of the base at that size.
    larger = dict(encoder_of(kind), img_size=(32, 64))
    merged = lora.merged().state_dict() | {
        k: v for k, v in filled(larger, base(kind)).state_dict().items() if k.endswith('pos_embed')
    }
    torch.testing.assert_close(
        dict(filled(larger, out, base=base(kind)).state_dict()), dict(merged), rtol=0, atol=0
    )
    assert extract(source, tmp_path / 'whole.pth') == 0
    assert extract(out, tmp_path / 'merged.pth', '--base', base(kind)) == 0
    torch.testing.assert_close(
        load_checkpoint_file(tmp_path / 'merged.pth')['state_dict'],
        load_checkpoint_file(tmp_path / 'whole.pth')['state_dict'],
    )
    with safe_open(out, 'pt') as file:
        names = set(file.keys())
        meta = {k: json.loads(v) for k, v in file.metadata().items()}
    layer = ('layers.{}' if kind == 'mask3d' else 'blocks.{}') + '.attn.{}.{}'
    assert names == {
        layer.format(i, part, tensor)
        for i in (0, 1)
        for part in ('qkv', 'proj')
        for tensor in ('lora_down.weight', 'lora_up.weight', 'alpha')
    }
    assert meta['lora'] == dict(
        rank=4, alpha=3, targets=[dict(type='qkv'), dict(type='proj', alpha=0.7)]
    )
    assert meta['base']['sha256'] == base_sha256(filled(encoder_of(kind), base(kind)))
    assert meta['base']['location'] is None  # a path of this machine
    assert meta['base']['name'].startswith(f'{kind}-0.pth')
    assert (meta['patch_grid'], meta['epoch'], meta['data'][0]['data_root']) == ([3, 5], 2, 'mine')


def test_an_adapter_of_timms_weights_finds_them_by_name(
    run, base, extract, tmp_path, monkeypatch, warnings_logged_by_mmengine
):
    """In every place that takes an encoder: init_cfg, pretrained, get_model, swap, report."""
    weights = [base('timm')]
    asked = []

    def hub(location, *args, **kwargs):
        asked.append(location)
        return read(weights[0] if location.startswith('hf://timm/') else location, *args, **kwargs)

    read = timm_vit.read_checkpoint
    monkeypatch.setattr(timm_vit, 'read_checkpoint', hub)
    source, lora = run('timm', pretrained=True)
    out = str(tmp_path / 'adapter.safetensors')
    assert extract(source, out, '--adapter') == 0
    expected = features(lora.merged())
    asked.clear()
    torch.testing.assert_close(features(filled(encoder_of('timm'), out)), expected)
    assert asked == [out, f'hf://timm/{TIMM}:model.safetensors']
    given = MODELS.build(encoder_of('timm', pretrained=out))
    given.init_weights()
    torch.testing.assert_close(features(given), expected)
    pyramid = dict(type='mmmask3d.Mask3DPyramid', encoder=encoder_of('timm', pretrained=True),
                   out_strides=(8,), out_channels=(8,), out_indices=(0,))  # fmt: skip
    wrapped = dict(type='mmmask3d.LoRAEncoder', module=encoder_of('timm', pretrained=True))
    for config in (encoder_of('timm', pretrained=True), pyramid, wrapped):
        model = get_model(dict(model=config), pretrained=out)
        torch.testing.assert_close(features(getattr(model, 'vit', model)), expected)
    whole = dict(
        type='mmmask3d.MaskedRGBD',
        backbone=wrapped,
        fusion=dict(type='AddFusion', embed_dims=16),
        decoders=dict(depth=dict(type='DepthDecoder', num_layers=0)),
        heads=dict(depth=dict(type='DepthHead')),
    )
    model = get_model(dict(model=whole), pretrained=out)
    torch.testing.assert_close(features(model.backbone), expected)
    assert warnings_logged_by_mmengine[-1].startswith(f'{out}: an adapter, which fills the encoder')
    settings = encoder_settings(out)
    assert settings['img_size'] == SIZE
    torch.testing.assert_close(features(_built(settings)), expected)
    torch.testing.assert_close(features(build_encoder('mine', out, SIZE).module), expected)
    # Other weights under that name, and none.
    weights[0] = base('timm', seed=1)
    with pytest.raises(RuntimeError, match=r'(?s)an adapter for .*holds others.*base=FILE'):
        filled(encoder_of('timm'), out)
    weights[0] = str(tmp_path / 'missing.pth')
    with pytest.raises(RuntimeError, match=r'(?s)could not be loaded.*base=FILE.*missing\.pth'):
        filled(encoder_of('timm'), out)


def _built(settings):
    encoder = MODELS.build(settings)
    encoder.init_weights()
    return encoder


def test_a_published_adapter_is_one_that_says_what_it_belongs_to(run, base, extract, tmp_path):
    source, lora = run('mask3d')
    assert extract(source, tmp_path / 'adapter.safetensors', '--adapter') == 0
    written = publish(
        tmp_path / 'adapter.safetensors', tmp_path / 'mine', 'own frames, CC BY 4.0', 'Apache-2.0',
        init_license='Apache-2.0',
    )  # fmt: skip
    found = filled(encoder_of('mask3d'), written['weights'], base=base('mask3d'))
    torch.testing.assert_close(features(found), features(lora.merged()))
    card = json.loads(Path(written['card']).read_text())
    assert (card['part'], card['base']['name']) == ('adapter', 'mask3d-0.pth (Mask3DViT)')
    assert card['base']['sha256'] in Path(written['text']).read_text()


def test_what_is_refused(run, base, extract, tmp_path, capsys):
    source, _ = run('mask3d')
    adapter, none = str(tmp_path / 'adapter.pth'), tmp_path / 'none.pth'
    assert extract(source, adapter, '--adapter') == 0
    capsys.readouterr()

    def refused(message, *arguments):
        assert extract(*arguments) == 1
        assert message in capsys.readouterr().err
        assert not none.exists()

    refused('holds others', adapter, none, '--base', base('mask3d', seed=1))
    refused('does not say where', adapter, none)
    refused('have the sha256', source, none, '--base', base('mask3d', seed=1))
    refused('expected the checkpoint of a run', base('mask3d'), none, '--adapter')
    refused('--base goes with', base('mask3d'), none, '--base', adapter)
    with pytest.raises(ValueError, match=r'base=.* goes with the file of an adapter'):
        filled(encoder_of('mask3d'), base('mask3d'), base=adapter)
    with pytest.raises(ValueError, match=r'LoRA matrices .*mmmask3d extract .*epoch_2\.pth'):
        filled(encoder_of('mask3d'), source)
    with pytest.raises(RuntimeError, match='attention heads'):
        filled(
            encoder_of(
                'mask3d',
            )
            | dict(arch={**ARCH, 'num_heads': 4}),
            adapter,
        )
    content = load_checkpoint_file(adapter)
    del content['state_dict']['layers.1.attn.qkv.alpha']
    torch.save(content, adapter)
    with pytest.raises(RuntimeError, match=r'damaged.*layers\.1\.attn\.qkv\.alpha'):
        filled(encoder_of('mask3d'), adapter, base=base('mask3d'))


def test_the_hash_is_one_for_all_sizes_and_layouts_and_another_for_other_weights(base, tmp_path):
    path = base('mask3d')
    encoder = filled(encoder_of('mask3d'), path)
    wanted = base_sha256(encoder)
    larger = dict(encoder_of('mask3d'), img_size=(48, 64), patch_size=16)
    assert base_sha256(filled(larger, path)) == wanted
    names = to_timm(encoder.state_dict())
    torch.save(names, tmp_path / 'timm.pth')
    timm = TimmViT('vit_base_patch16_224', img_size=SIZE, patch_size=8, model_args=SMALL)
    timm.fill(names, 'timm.pth', (3, 5))
    assert base_sha256(timm) == wanted
    with torch.no_grad():
        encoder.layers[1].ln1.bias[0] += 1e-3
    assert base_sha256(encoder) != wanted
