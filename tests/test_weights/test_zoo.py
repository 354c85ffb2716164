"""The zoo lists every config, says what the configs say, and fills models or raises."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint
from safetensors.torch import load_file, save_file

import mmmask3d
from mmmask3d import apis
from mmmask3d.apis import get_model, list_models
from mmmask3d.checkpoints.files import CheckpointError
from mmmask3d.engine.run_config import load_config
from mmmask3d.models import Mask3DViT, MaskedRGBD
from mmmask3d.weights import index as model_zoo
from mmmask3d.weights.index import SCHEME, ZooError, find_entry, read_zoo, weights_file

ROOT = Path(mmmask3d.__file__).parents[1]
CONFIGS = sorted(p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)
SHIPPED = 'distilled_vit-mini_b32-6e_rooms-96x128'
METAFILES = {
    model['Name']: model
    for name in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    for model in yaml.safe_load((ROOT / name).read_text())['Models']
}
ARCH = dict(embed_dims=192, num_layers=6, num_heads=3, feedforward_channels=768)


def described(path):
    """What a metafile should say of a config: the ready entry, for whoever adds a config."""
    cfg = load_config(path)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = MODELS.build(cfg.model)
    gpus = re.search(r'_(\d+)xb\d', path.stem)
    length = {
        'Epochs': cfg.train_cfg.get('max_epochs'),
        'Iterations': cfg.train_cfg.get('max_iters'),
    }
    return {
        'Name': path.stem,
        'Config': path.relative_to(ROOT).as_posix(),
        'Metadata': {
            **{key: value for key, value in length.items() if value is not None},
            'Batch Size': cfg.train_dataloader.batch_size * int(gpus[1] if gpus else 1),
            'Parameters': sum(p.numel() for p in model.parameters()),
        },
    }


@pytest.mark.parametrize('path', CONFIGS, ids=[p.stem for p in CONFIGS])
def test_every_config_is_in_the_zoo_as_it_is(path):
    wanted = described(path)
    found = METAFILES.get(path.stem)
    entry = yaml.safe_dump([wanted], sort_keys=False)
    assert found, (
        f'{path.parent / "metafile.yml"}: add, with In Collection, Training Data:\n{entry}'
    )
    metadata = {k: v for k, v in found['Metadata'].items() if k != 'Training Data'}
    assert {**wanted, 'Metadata': metadata} == wanted | {'Metadata': wanted['Metadata']}
    assert found['Config'] == wanted['Config']
    assert found['Metadata']['Training Data']


def test_the_zoo_has_no_other_models():
    assert set(read_zoo()) == {path.stem for path in CONFIGS}


def test_results_stand_in_the_documentation():
    """No figure in a metafile that docs/ does not explain."""
    pages = ' '.join(p.read_text() for p in (ROOT / 'docs').rglob('*.md'))
    for name, model in METAFILES.items():
        results = model.get('Results') or []
        for result in results if isinstance(results, list) else [results]:
            for value in result['Metrics'].values():
                assert re.search(rf'(?<![\d.]){re.escape(str(value))}(?!\d)', pages), name


def test_listing():
    assert list_models() == sorted(read_zoo())
    assert list_models('distilled*') == [SHIPPED]
    assert SHIPPED in list_models(pretrained=True)
    assert not set(list_models(pretrained=True)) & set(list_models(pretrained=False))
    of_segmentation = [n for n, m in METAFILES.items() if 'Semantic Seg' in str(m.get('Results'))]
    assert of_segmentation
    assert list_models(task='Semantic Segmentation') == sorted(of_segmentation)
    assert list_models('nothing of that name') == []


def test_the_package_offers_nothing_else():
    assert set(apis.__all__) == {'get_model', 'list_models'} | set(apis._MODULES)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        apis.nothing  # noqa: B018


def test_the_shipped_weights_are_what_their_card_says():
    (path,) = model_zoo.SHIPPED.glob('*.safetensors')
    card = json.loads(path.with_suffix('.json').read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert card['sha256'] == digest
    assert path.name == card['file'] == f'{SHIPPED}-{digest[:8]}.safetensors'
    assert find_entry(SHIPPED).weights == f'mmmask3d://{SHIPPED}#sha256={digest}'
    assert path.stat().st_size == card['bytes'] < 8 * 2**20
    assert card['seed'] == 0
    assert 'make_rooms_encoder.py' in card['made_by']
    assert card['terms'].startswith('Apache-2.0')
    text = path.with_suffix('.md').read_text()
    assert digest in text
    assert f'{card["figures"]["masked_depth/aligned_rmse"]:.4g}' in text
    # In words of the zoo: the same figure, rounded.
    (result,) = METAFILES[SHIPPED]['Results']
    figure = card['figures']['masked_depth/aligned_std_rmse']
    assert result['Metrics']['RMSE / std, aligned'] == round(figure, 3)
    for name in ('home', 'tmp', 'work'):
        assert f'/{name}/' not in path.with_suffix('.json').read_text()


def test_pretrained_without_a_network(monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError('the network was asked')

    monkeypatch.setattr('socket.socket.connect', no_network)
    model = get_model(SHIPPED, pretrained=True)
    assert isinstance(model, MaskedRGBD)
    assert not model.training
    stored = load_file(weights_file(f'mmmask3d://{SHIPPED}'))
    assert stored.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[key].float()), key
    assert model.cfg.model.type == 'MaskedRGBD'
    # What stands there stays there, also when a Runner initialises the model.
    model.init_weights()
    assert torch.equal(model.backbone.pos_embed, stored['backbone.pos_embed'].float())


def test_overrides_reach_the_model():
    model = get_model(SHIPPED, pretrained=True, backbone=dict(out_indices=(1, 3, 5)))
    maps = model.backbone(torch.zeros(1, 3, 96, 128))
    assert [tuple(m.shape) for m in maps] == [(1, 192, 12, 16)] * 3


def test_without_weights_the_config_decides():
    torch.manual_seed(0)
    one = get_model(SHIPPED)
    torch.manual_seed(1)
    other = get_model(SHIPPED)
    assert not torch.equal(one.heads.depth.proj.weight, other.heads.depth.proj.weight)
    expected = Mask3DViT(arch=ARCH, img_size=(96, 128), patch_size=8)
    expected.init_weights()
    assert torch.equal(one.backbone.pos_embed, expected.pos_embed)  # sine-cosine


def test_a_config_file_or_object_in_place_of_a_name(tmp_path):
    path = find_entry(SHIPPED).config
    weights = str(weights_file(f'mmmask3d://{SHIPPED}'))
    reference = get_model(SHIPPED, pretrained=True)
    for source in (path, str(path), load_config(path)):
        model = get_model(source, pretrained=weights)
        assert torch.equal(model.backbone.ln1.weight, reference.backbone.ln1.weight)
        with pytest.raises(ZooError, match='needs the name'):
            get_model(source, pretrained=True)


def test_models_of_mmseg():
    model = get_model('mask3d-mini_fcn_rooms_demo')
    assert type(model).__module__.startswith('mmseg')
    assert isinstance(model.backbone, Mask3DViT)


def test_what_does_not_exist():
    with pytest.raises(ZooError, match=rf"'distilled_vit-mini' is none of .*{SHIPPED}"):
        get_model('distilled_vit-mini')
    without = list_models(pretrained=False)[0]
    with pytest.raises(ZooError, match=rf'{without} has no published weights.*{SHIPPED}.*train'):
        get_model(without, pretrained=True)


def test_weights_of_something_else_are_listed(tmp_path):
    model = get_model(SHIPPED, pretrained=True)
    encoder = str(tmp_path / 'encoder.pth')
    torch.save(model.backbone.state_dict(), encoder)
    with pytest.raises(RuntimeError, match=r'(?s)missing in .*: backbone\.cls_token.*encoder'):
        get_model(SHIPPED, pretrained=encoder)
    other = str(tmp_path / 'other.safetensors')
    save_file(dict(model.state_dict(), **{'neck.x': torch.ones(1)}), other)
    with pytest.raises(RuntimeError, match=r'unknown here \(1\): neck\.x'):
        get_model(SHIPPED, pretrained=other)
    wrong = {**model.state_dict(), 'backbone.ln1.weight': torch.ones(5)}
    save_file(wrong, other)
    with pytest.raises(RuntimeError, match=r'of another shape \(1\): backbone\.ln1\.weight'):
        get_model(SHIPPED, pretrained=other)


# ---------------------------------------------------------------- mmmask3d:// elsewhere


def test_the_scheme_in_init_cfg_also_on_another_grid():
    stored = load_file(weights_file(f'mmmask3d://{SHIPPED}'))
    for size in ((96, 128), (48, 96)):
        init_cfg = dict(type='Pretrained', checkpoint=f'mmmask3d://{SHIPPED}', prefix='backbone.')
        model = Mask3DViT(arch=ARCH, img_size=size, patch_size=8, init_cfg=init_cfg)
        model.init_weights()
        for key, value in model.state_dict().items():
            if key != 'pos_embed':
                assert torch.equal(value, stored[f'backbone.{key}'].float())


def test_the_hash_is_checked(monkeypatch, tmp_path):
    digest = hashlib.sha256(weights_file(f'mmmask3d://{SHIPPED}').read_bytes()).hexdigest()
    assert weights_file(f'mmmask3d://{SHIPPED}#sha256={digest}').exists()
    with pytest.raises(CheckpointError, match='its sha256 is'):
        weights_file(f'mmmask3d://{SHIPPED}#sha256={"0" * 64}')
    # A damaged installation.
    shutil.copytree(model_zoo.SHIPPED, tmp_path / 'weights')
    monkeypatch.setattr(model_zoo, 'SHIPPED', tmp_path / 'weights')
    (path,) = (tmp_path / 'weights').glob('*.safetensors')
    path.write_bytes(path.read_bytes()[:-4] + b'\0\0\1\1')
    with pytest.raises(CheckpointError, match=f'expected {digest}'):
        weights_file(f'mmmask3d://{SHIPPED}')
    path.unlink()
    with pytest.raises(ZooError, match='holds 0 files'):
        weights_file(f'mmmask3d://{SHIPPED}')


def zoo_in(folder, weights, name='tiny'):
    """A zoo of one model, whose weights are elsewhere."""
    (folder / 'configs').mkdir(parents=True)
    (folder / 'configs/tiny.py').write_text(
        "default_scope = 'mmmask3d'\n"
        "model = dict(type='Mask3DViT', arch=dict(embed_dims=24, num_layers=1, num_heads=3, "
        'feedforward_channels=24), img_size=32)\n'
    )
    models = [{'Name': name, 'In Collection': 'x', 'Config': 'configs/tiny.py', 'Weights': weights}]
    (folder / 'configs/metafile.yml').write_text(yaml.safe_dump({'Models': models}))
    (folder / 'model-index.yml').write_text(yaml.safe_dump({'Import': ['configs/metafile.yml']}))
    return folder


def test_weights_behind_a_url(tmp_path, monkeypatch):
    url = f'https://example.org/tiny.pth#sha256={"a" * 64}'
    root = zoo_in(tmp_path, url)
    asked = []

    def download(location, sha256=None):
        asked.append((location, sha256))
        return expected

    expected = tmp_path / 'tiny.pth'
    model = MODELS.build(
        Config.fromfile(tmp_path / 'configs/tiny.py').model | {'type': 'mmmask3d.Mask3DViT'}
    )
    torch.save({'state_dict': model.state_dict()}, expected)
    monkeypatch.setattr(model_zoo, 'download', download)
    monkeypatch.setattr(model_zoo, 'read_zoo', lambda: read_zoo(root))
    found = get_model('tiny', pretrained=True)
    for key, value in found.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
    assert set(asked) == {(url, None)}


def test_a_broken_index(tmp_path):
    with pytest.raises(ZooError, match=r'pip install -e \.'):
        read_zoo(tmp_path)


def test_mmengine_takes_the_scheme():
    """As `load_from` and `mmengine.runner.load_checkpoint` do."""
    model, expected = get_model(SHIPPED), get_model(SHIPPED, pretrained=True)
    load_checkpoint(model, f'mmmask3d://{SHIPPED}', strict=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key])


def test_settings_that_no_shape_tells(tmp_path):
    """Three heads or six, metres or deviations: every tensor fits, and the results are others."""
    heads = dict(backbone=dict(arch=dict(num_heads=6)))
    with pytest.raises(RuntimeError, match='has 3 attention heads'):
        get_model(SHIPPED, pretrained=True, **heads)
    target = dict(data_preprocessor=dict(depth_target=dict(mode='metric')))
    with pytest.raises(RuntimeError, match=r'model\.data_preprocessor\.depth_target'):
        get_model(SHIPPED, pretrained=True, **target)


def test_what_may_be_given(capsys):
    cfg = load_config(find_entry(SHIPPED).config)
    file = Path(weights_file(f'{SCHEME}{SHIPPED}'))
    from_dict = get_model(cfg.to_dict(), pretrained=file)
    by_name = get_model(SHIPPED, pretrained=True)
    for mine, theirs in zip(from_dict.parameters(), by_name.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(ZooError, match='looks like a file of weights'):
        get_model('work_dirs/x/epoch_100.pth')


def test_building_is_quiet(capfd):
    get_model(SHIPPED)
    assert len(capfd.readouterr().out.splitlines()) < 20
