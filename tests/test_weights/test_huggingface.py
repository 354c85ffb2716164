"""Files of transformers: features after conversion are those of transformers itself."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mmmask3d.models import Mask3DViT, TimmViT
from mmmask3d.weights.translation import translate

SIZES = dict(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
    image_size=24, patch_size=8,
)  # fmt: skip
#: Model, config and its arguments, class that the weights load into.
FAMILIES = {
    'ViT': ('ViTModel', 'ViTConfig', {}, Mask3DViT),
    'ViT without qkv bias': ('ViTModel', 'ViTConfig', dict(qkv_bias=False), Mask3DViT),
    'MAE': ('ViTMAEModel', 'ViTMAEConfig', dict(mask_ratio=0.0), Mask3DViT),
    'DINOv2': ('Dinov2Model', 'Dinov2Config', dict(mlp_ratio=2), Mask3DViT),
    'DINOv2, gated': ('Dinov2Model', 'Dinov2Config', dict(use_swiglu_ffn=True), Mask3DViT),
    'registers': ('Dinov2WithRegistersModel', 'Dinov2WithRegistersConfig', {}, TimmViT),
    'three registers': (
        'Dinov2WithRegistersModel', 'Dinov2WithRegistersConfig', dict(num_register_tokens=3),
        TimmViT,
    ),
    'DINOv3': ('DINOv3ViTModel', 'DINOv3ViTConfig', dict(num_register_tokens=4), TimmViT),
    'DINOv3, gated': (
        'DINOv3ViTModel', 'DINOv3ViTConfig',
        dict(num_register_tokens=4, use_gated_mlp=True, hidden_act='silu', rope_theta=50.0),
        TimmViT,
    ),
    'SigLIP': ('SiglipVisionModel', 'SiglipVisionConfig', {}, TimmViT),
    'CLIP': ('CLIPVisionModel', 'CLIPVisionConfig', {}, TimmViT),
    'CLIP, exact GELU': ('CLIPVisionModel', 'CLIPVisionConfig', dict(hidden_act='gelu'), TimmViT),
}  # fmt: skip
#: `make test` installs it where Python does not look: beside it mmpretrain would not import.
TRANSFORMERS = Path(sys.prefix) / 'transformers'


@pytest.fixture(autouse=True, scope='module')
def _transformers():
    assert (TRANSFORMERS / 'transformers').is_dir(), 'see requirements/transformers.txt'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'path', [*sys.path, str(TRANSFORMERS)])
        yield


IMAGE = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(3))


def build(name, **more):
    """A model of transformers with random numbers in every parameter."""
    import transformers

    model, config, arguments, _ = FAMILIES[name]
    return filled(getattr(transformers, model)(
        getattr(transformers, config)(**SIZES, **arguments, **more)
    ))  # fmt: skip


def filled(model):
    torch.manual_seed(0)
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return model.eval()


def features(model, image=IMAGE):
    """Tokens after the last layer and its norm, which CLIP applies to the class token alone."""
    arguments = {}
    if type(model).__name__.startswith('ViTMAE'):  # it shuffles the patches even if it keeps all
        count = (image.shape[-1] // 8) * (image.shape[-2] // 8)
        arguments['noise'] = torch.arange(count).expand(len(image), -1).float()
    with torch.no_grad():
        out = model(pixel_values=image, **arguments).last_hidden_state
        return model.post_layernorm(out) if hasattr(model, 'pre_layrnorm') else out


def load(kind, lines, path, **options):
    """The model that the report says how to build, filled from the file."""
    settings = eval(f'dict({lines[-1].removeprefix("build with: ")})')
    assert (settings.pop('type', None) == 'mmmask3d.TimmViT') == (kind is TimmViT)
    settings.setdefault('img_size', 24)
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    model = kind(**settings, init_cfg=init_cfg, **options)
    model.init_weights()
    return model.eval()


def maps(tokens, extra):
    return tokens[:, extra:].transpose(1, 2).unflatten(2, (3, 3))


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('name', FAMILIES)
def test_features_are_those_of_transformers(name, tmp_path):
    theirs, kind = build(name), FAMILIES[name][-1]
    theirs.save_pretrained(tmp_path)
    out = tmp_path / 'encoder.safetensors'
    # The number of heads, the activation and the eps of the norms are in config.json.
    lines = translate(str(tmp_path / 'model.safetensors'), str(out))
    ours = load(kind, lines, out)
    with torch.no_grad():
        found = ours(IMAGE)[0]
    assert_close(found, maps(features(theirs), ours.num_extra_tokens))
    assert found.std() > 0.05  # no constant


@pytest.mark.parametrize('name', ['ViT', 'DINOv2', 'registers', 'DINOv3'])
def test_names_that_models_of_transformers_5_have_in_memory(name, tmp_path):
    theirs, kind = build(name), FAMILIES[name][-1]
    source, out = tmp_path / 'state.pth', tmp_path / 'encoder.safetensors'
    torch.save(theirs.state_dict(), source)
    eps = 1e-12 if name == 'ViT' else None
    lines = translate(str(source), str(out), num_heads=3, norm_eps=eps)
    with torch.no_grad():
        found = load(kind, lines, out)(IMAGE)[0]
    assert_close(found, maps(features(theirs), 5 if kind is TimmViT else 1))


TASKS = {
    'vit.': ('ViTForImageClassification', 'ViT', 'classifier.*, beside the encoder (2 tensors)'),
    'dinov2.': (
        'Dinov2ForImageClassification', 'DINOv2', 'classifier.*, beside the encoder (2 tensors)'
    ),
    'MAE': ('ViTMAEForPreTraining', 'MAE', 'decoder.*, beside the encoder'),
    'text': ('CLIPModel', 'CLIP', 'text_model.*, beside the encoder'),
}  # fmt: skip


@pytest.mark.parametrize('prefix', TASKS)
def test_inside_a_task_model(prefix, tmp_path):
    import transformers

    model, name, said = TASKS[prefix]
    config = FAMILIES[name][1]
    small = dict(
        vocab_size=10, hidden_size=24, num_hidden_layers=1, num_attention_heads=3,
        intermediate_size=24, decoder_hidden_size=24, decoder_num_hidden_layers=1,
        decoder_num_attention_heads=3, decoder_intermediate_size=24,
    )  # fmt: skip
    if name == 'CLIP':
        config = transformers.CLIPConfig(vision_config=SIZES, text_config=small)
    else:
        more = {k: v for k, v in small.items() if k.startswith('decoder')} if name == 'MAE' else {}
        config = getattr(transformers, config)(**SIZES, **FAMILIES[name][2], **more)
    whole = filled(getattr(transformers, model)(config))
    whole.save_pretrained(tmp_path)
    lines = translate(str(tmp_path / 'model.safetensors'), str(tmp_path / 'encoder.pth'))
    assert said in next(line for line in lines if line.startswith('left out'))
    inner = getattr(whole, {'CLIP': 'vision_model', 'DINOv2': 'dinov2'}.get(name, 'vit'))
    ours = load(FAMILIES[name][-1], lines, tmp_path / 'encoder.pth')
    with torch.no_grad():
        assert_close(ours(IMAGE)[0], maps(features(inner), 1))


def test_sharded_files_are_one(tmp_path):
    theirs = build('DINOv2')
    for size, folder in (('5GB', 'one'), ('6KB', 'many')):
        theirs.save_pretrained(tmp_path / folder, max_shard_size=size)
    index = tmp_path / 'many' / 'model.safetensors.index.json'
    shards = sorted((tmp_path / 'many').glob('*.safetensors'))
    assert len(shards) > 2
    outs = [tmp_path / 'a.safetensors', tmp_path / 'b.safetensors']
    translate(str(tmp_path / 'one' / 'model.safetensors'), str(outs[0]))
    translate(str(index), str(outs[1]))
    one, many = map(load_file, outs)
    assert one.keys() == many.keys()
    assert all(torch.equal(v, many[k]) for k, v in one.items())

    content = load_file(shards[0])
    save_file(dict(list(content.items())[1:]), shards[0])
    with pytest.raises(RuntimeError, match=rf'{shards[0].name}: 1 tensors are not where'):
        translate(str(index), str(tmp_path / 'c.pth'))
    shards[0].unlink()
    with pytest.raises(FileNotFoundError, match=f'{shards[0].name}: missing'):
        translate(str(index), str(tmp_path / 'c.pth'))
    for text, message in (
        ('{"weight_map": {"a": "../x.safetensors"}}', 'in the same folder'),
        ('{"a": 1}', 'JSON with a weight_map'),
        ('nothing', 'JSON with a weight_map'),
    ):
        index.write_text(text)
        with pytest.raises(RuntimeError, match=message):
            translate(str(index), str(tmp_path / 'c.pth'))
    assert not (tmp_path / 'c.pth').exists()


@pytest.mark.parametrize('name', ['ViT', 'DINOv2', 'DINOv2, gated'])
def test_written_back_they_load_into_transformers(name, tmp_path):
    theirs = build(name)
    theirs.save_pretrained(tmp_path)
    encoder, back = tmp_path / 'encoder.safetensors', tmp_path / 'back' / 'model.safetensors'
    back.parent.mkdir()
    translate(str(tmp_path / 'model.safetensors'), str(encoder))
    lines = translate(str(encoder), str(back), 'huggingface')
    names = {
        k for k in safe_open(tmp_path / 'model.safetensors', 'pt').keys()  # noqa: SIM118
        if 'pooler' not in k
    }  # fmt: skip
    assert set(load_file(back)) == names
    import transformers

    code = next(line for line in lines if line.startswith('for transformers'))
    model = eval(code.removeprefix('for '), dict(transformers=transformers))
    (back.parent / 'config.json').write_text(model.config.to_json_string())
    loaded, info = type(model).from_pretrained(
        back.parent,
        output_loading_info=True,
        **(dict(add_pooling_layer=False) if name == 'ViT' else {}),
    )
    assert not any(info.values()), info
    assert_close(features(loaded.eval()), features(theirs))


# ---------------------------------------------------------------- what is refused


def changed(name, tmp_path, change):
    """A file of a family after ``change`` of its tensors, and its folder's config."""
    build(name).save_pretrained(tmp_path)
    path = tmp_path / 'model.safetensors'
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return path


@pytest.mark.parametrize(
    ('name', 'change', 'message'),
    [
        (
            'DINOv2',
            lambda t: t.update({f'encoder.layer.0.adapter.{i}': torch.ones(2) for i in range(2)}),
            r"Hugging Face's DINOv2, but of 45 tensors 2 have no place there: .*adapter\.0",
        ),
        (
            'ViT',
            lambda t: t.update({'embeddings.distillation_token': torch.ones(1, 1, 24)}),
            r'1 have no place there: embeddings\.distillation_token',
        ),
        (
            'DINOv2',
            lambda t: t.pop('encoder.layer.1.attention.attention.key.weight'),
            r'blocks\.1\.attn\.\* has the weight of q, v; expected those of query, key and value',
        ),
        (
            'SigLIP',
            lambda t: t.pop('encoder.layers.1.layer_norm2.weight'),
            r'does not load into .*blocks\.1\.norm2\.weight',
        ),
        (
            'ViT',
            lambda t: t.pop('encoder.layer.1.layernorm_after.weight'),
            r'does not load into .*layers\.1\.ln2\.weight',
        ),
        (
            'SigLIP',
            lambda t: t.update({'embeddings.patch_embedding.weight': torch.ones(24, 192)}),
            r'patch embedding is of shape \(24, 192\)',
        ),
    ],
)
def test_a_layout_that_matches_in_part_is_refused(name, change, message, tmp_path):
    path = changed(name, tmp_path, change)
    with pytest.raises(ValueError, match=f'(?s){message}'):
        translate(str(path), str(tmp_path / 'out.pth'))
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.parametrize(
    ('name', 'options', 'config', 'message'),
    [
        ('registers', dict(target='mmmask3d'), {}, 'is more than a plain ViT.*--to timm'),
        ('CLIP', dict(target='mmmask3d'), {}, 'is more than a plain ViT.*--to timm'),
        ('ViT', {}, dict(hidden_act='quick_gelu'), "hidden_act='quick_gelu'; expected gelu"),
        ('DINOv3', dict(num_heads=6), {}, '--num-heads 6, but the file records 3'),
        ('DINOv2', dict(num_heads=6), {}, '--num-heads 6, but the file records 3'),
        ('SigLIP', dict(grid=(3, 3)), {}, '--grid, .* are not for SigLIP'),
        ('DINOv3', {}, dict(hidden_act='relu'), "hidden_act='relu'"),
        ('DINOv3', {}, dict(layer_norm_eps=1e-3), 'have eps 0.001, those of .* 1e-05'),
        ('ViT', dict(kind='timm'), {}, 'has the names of huggingface, not of timm'),
    ],
)
def test_settings_that_contradict_are_refused(name, options, config, message, tmp_path):
    build(name).save_pretrained(tmp_path)
    path = tmp_path / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    with pytest.raises(ValueError, match=message):
        translate(str(tmp_path / 'model.safetensors'), str(tmp_path / 'out.pth'), **options)
    assert not (tmp_path / 'out.pth').exists()


def test_what_no_file_tells_is_asked_for(tmp_path):
    for name in ('DINOv3', 'DINOv2'):
        build(name).save_pretrained(tmp_path)
        (tmp_path / 'config.json').unlink()
        with pytest.raises(ValueError, match='--num-heads N'):
            translate(str(tmp_path / 'model.safetensors'), str(tmp_path / 'out.pth'))
    (tmp_path / 'config.json').write_text('[]')
    with pytest.raises(ValueError, match=r'config\.json: expected the settings'):
        translate(str(tmp_path / 'model.safetensors'), str(tmp_path / 'out.pth'))


def test_another_patch_size_in_timm_vit(tmp_path):
    build('DINOv3').save_pretrained(tmp_path)
    out = tmp_path / 'out.safetensors'
    lines = translate(str(tmp_path / 'model.safetensors'), str(out), patch_size=12)
    assert 'note: patch embedding resampled from patches of 8 pixels to 12' in lines
    model = load(TimmViT, lines, out)
    assert (model.patch_size, model.grid_size) == (12, (3, 3))
    kept = load_file(tmp_path / 'model.safetensors')['embeddings.cls_token']
    assert torch.equal(model.trunk.cls_token, kept)


def test_a_size_that_timm_names(tmp_path):
    """The model is found by its tensors; only what it does not have by default is told."""
    import transformers

    config = transformers.Dinov2WithRegistersConfig(
        hidden_size=384, num_attention_heads=6, image_size=28, patch_size=14
    )
    transformers.Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    lines = translate(str(tmp_path / 'model.safetensors'), str(tmp_path / 'out.safetensors'))
    assert lines[-1] == (
        "build with: type='mmmask3d.TimmViT', model='vit_small_patch14_reg4_dinov2', "
        'img_size=(28, 28)'
    )
    assert re.match(r'.*175 tensors with the names of timm, from huggingface', lines[0])
