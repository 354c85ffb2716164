"""The report card from its command line, on generated rooms: labels, depth, normals, pairs."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import init_default_scope
from PIL import Image

from mmmask3d.apis.encoders import build_encoder
from mmmask3d.apis.reconstructions import draw_reconstructions
from mmmask3d.apis.report_card import ReportOptions, report_encoders
from mmmask3d.cli.report import main, parse_args
from mmmask3d.engine.run_config import load_config
from mmmask3d.models import Mask3DViT, TimmViT
from mmmask3d.registry import MODELS
from mmmask3d.visualization.report_page import RECONSTRUCTION, report_page
from mmmask3d.weights.export import write_encoder

ROOT = Path(__file__).parents[2]
TINY = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
SEGMENTATION = """
train_dataloader = dict(dataset=dict(type='mmmask3d.RoomsSegDataset', data_root={root!r},
    ann_file='splits/train.txt', pipeline=[]))
val_dataloader = dict(dataset=dict(type='mmmask3d.RoomsSegDataset', data_root={root!r},
    ann_file='splits/val.txt', pipeline=[dict(type='LoadImageFromFile'),
    dict(type='mmmask3d.LoadSegLabels'), dict(type='PackSegInputs')]))
default_scope = 'mmseg'
"""
PRETRAINING = """
train_dataloader = dict(dataset=dict(type='RGBDDataset', data_root={root!r},
    ann_file='splits/train.txt', pipeline=[]))
val_dataloader = dict(dataset=dict(type='RGBDDataset', data_root={root!r},
    ann_file='splits/val.txt', pipeline=[dict(type='LoadRGBD'), dict(type='PackRGBDInputs')]))
default_scope = 'mmmask3d'
"""
RESNET = """
model = dict(
    backbone=dict(type='mmpretrain.ResNet', depth=18, out_indices=(3,)),
    data_preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1, 1, 1], bgr_to_rgb=False))
"""


@pytest.fixture
def configs(tiny_rooms, tmp_path):
    paths = []
    for name, text in (('seg', SEGMENTATION), ('pretrain', PRETRAINING)):
        paths.append(tmp_path / f'{name}.py')
        paths[-1].write_text(text.format(root=str(tiny_rooms)))
    return paths


def export(path, seed=0):
    torch.manual_seed(seed)
    vit = Mask3DViT(arch=TINY, img_size=32, patch_size=8)
    backbone = dict(type='Mask3DViT', arch=TINY, patch_size=8, img_size=(32, 32))
    meta = {'format': 'mmmask3d-encoder/1', 'backbone': backbone, 'patch_grid': (4, 4)}
    write_encoder(path, vit.state_dict(), meta)
    return vit


class Page(HTMLParser):
    """Counts pictures, and what a page could load or run."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.foreign = 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == 'img':
            self.pictures += 1
            assert values['alt']
        source = values.get('src') or values.get('href') or ''
        if tag in ('script', 'link', 'iframe') or (source and not source.startswith('data:image/')):
            self.foreign.append((tag, source[:40]))


def test_from_rooms_to_page(configs, tmp_path, capsys):
    export(tmp_path / 'enc.pth')
    resnet = tmp_path / 'resnet.py'
    resnet.write_text(RESNET)
    out = tmp_path / 'out' / 'report.html'
    code = main([
        f'ours={tmp_path}/enc.pth', f'copy={tmp_path}/enc.pth', f'net=random:{resnet}', 'random',
        '--data', *map(str, configs), '--out', str(out), '--pictures', '2', '--size', '64', '90',
    ])  # fmt: skip
    said = capsys.readouterr()
    assert code == 0, said.err
    results = json.loads(out.with_suffix('.json').read_text())
    assert results['data']['fitted_on'] == 4
    assert results['data']['scored_on'] == 2
    assert results['data']['notes'] == []
    assert results['data']['depth'] == 'metric'
    about = results['encoders']
    assert about['ours']['input'] == [64, 88]  # whole patches
    assert about['ours']['grid'] == [8, 11]
    assert about['net']['input'] == [64, 90]
    assert about['net']['grid'] == [2, 3]
    assert about['net']['channels'] == 512
    assert about['random']['parameters'] == about['ours']['parameters']
    parts = results['parts']
    assert set(parts) == {
        'labels/linear', 'labels/knn', 'depth/linear', 'depth/knn', 'normals/linear',
        'efficiency/1%', 'efficiency/5%', 'efficiency/20%', 'efficiency/100%', 'correspondence',
    }  # fmt: skip
    for part, found in parts.items():
        # The same file twice: equal to the last digit, and a difference within noise.
        assert found['figures']['ours'] == found['figures']['copy']
        assert found['figures']['ours'] != found['figures']['random'], part
        for one in found['differences']['ours - copy'].values():
            assert one == {'difference': 0, 'low': 0, 'high': 0, 'within_noise': True}
    assert parts['efficiency/100%']['figures'] == parts['labels/linear']['figures']
    assert 0 < parts['normals/linear']['figures']['ours']['mean'] < 90
    assert parts['depth/linear']['figures']['ours']['rmse'] < 3
    text = out.read_text()
    page = Page(text)
    assert not page.foreign
    # Of each frame: itself, three truths, and of each encoder four; one pair by encoder.
    assert page.pictures == 2 * (1 + 3 + 4 * 4) + 4
    value = f'{parts["labels/linear"]["figures"]["ours"]["aAcc"]:.1f}'
    assert re.search(rf'>{re.escape(value)}<', text)
    assert '| ours |' in said.out


def test_a_part_alone_and_frames_on_both_sides(configs, tmp_path, capsys):
    export(tmp_path / 'enc.pth')
    text = configs[0].read_text().replace('splits/train.txt', 'splits/val.txt')
    configs[0].write_text(text)
    out = tmp_path / 'figures.json'
    code = main([
        f'a={tmp_path}/enc.pth', '--data', str(configs[0]), '--json', str(out), '--only', 'labels',
        '--limit', '2',
    ])  # fmt: skip
    assert code == 0
    results = json.loads(out.read_text())
    assert set(results['parts']) == {'labels/linear', 'labels/knn'}
    assert '2 of the 2 frames that are scored were also fitted on' in results['data']['notes'][0]
    assert not list(tmp_path.glob('*.html'))
    assert main([f'a={tmp_path}/enc.pth', '--data', str(configs[0]), '--only', 'depth']) == 1
    assert 'nothing can be measured' in capsys.readouterr().err


def test_seeds_of_a_method_and_labels_of_two_kinds(configs, tmp_path, capsys):
    for seed in (1, 2, 3):
        export(tmp_path / f'{seed}.pth', seed)
    fewer = tmp_path / 'fewer.py'
    options = "data_root={root!r}, metainfo=dict(classes=('wall', 'floor')),"
    fewer.write_text(
        SEGMENTATION.replace('data_root={root!r},', options).format(
            root=re.search(r"data_root='(.*?)'", configs[0].read_text())[1]
        )
    )
    out = tmp_path / 'r.html'
    runs = ','.join(f'{tmp_path}/{seed}.pth' for seed in (1, 2))
    arguments = ['--data', *map(str, (configs[0], fewer)), '--only', 'labels', '--pictures', '1']
    arguments += ['--methods', 'knn']
    code = main([f'a={runs}', f'b={tmp_path}/3.pth', *arguments, '--out', str(out)])
    said = capsys.readouterr()
    assert code == 0, said.err
    results = json.loads(out.with_suffix('.json').read_text())
    assert set(results['parts']) == {'labels2/knn', 'labels13/knn'}
    assert results['data']['classes']['labels2'] == ['wall', 'floor']
    assert [len(one['sources']) for one in results['encoders'].values()] == [2, 1]
    one = [f'a={tmp_path}/1.pth', f'c={tmp_path}/2.pth']
    assert main([*one, *arguments, '--json', str(tmp_path / 'single.json')]) == 0
    single = json.loads((tmp_path / 'single.json').read_text())
    for part, found in results['parts'].items():
        apart = single['parts'][part]
        for name, value in found['figures']['a'].items():
            each = [apart['figures'][run][name] for run in 'ac']
            assert value == pytest.approx(sum(each) / 2)
            spread = abs(each[0] - each[1]) / 2**0.5
            assert found['spreads']['a'][name] == pytest.approx(spread)
        assert set(found['spreads']) == {'a'}
        rows = found['by_row']['runs']
        assert rows['a'] == [*apart['by_row']['runs']['a'], *apart['by_row']['runs']['c']]
        # aAcc again, from what is kept of each frame.
        assert len(found['by_row']['frames']) == len(rows['b'][0]['pixels']) == 2
        pixels = [row for frame in rows['b'][0]['pixels'] for row in frame]
        share = sum(row[1] for row in pixels) / sum(row[3] for row in pixels)
        assert found['figures']['b']['aAcc'] == pytest.approx(100 * share)
    text = out.read_text()
    assert 'Labels, 2 classes' in text
    assert 'It covers other training seeds of a.' in text
    figures, spread = (results['parts']['labels2/knn'][of]['a'] for of in ('figures', 'spreads'))
    assert f'{figures["aAcc"]:.1f} ± {spread["aAcc"]:.2g}' in text


def test_a_training_checkpoint_shows_its_reconstructions(tiny_config, configs, tmp_path):
    """Of the frames that the page shows, though the run itself validated on others.

    Frames that have labels alone, in mmseg's scope, are shown without.
    """
    run = load_config(tiny_config)
    init_default_scope('mmmask3d')
    torch.manual_seed(0)
    model = MODELS.build(run.model)
    model.init_weights()
    run.val_dataloader.dataset.indices = 1
    checkpoint = tmp_path / 'epoch_2.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': {'cfg': run.pretty_text}}, checkpoint)
    cfg = load_config(tiny_config)
    data = dict(cfg.val_dataloader.dataset, pipeline=[
        dict(type='LoadRGBD'), dict(type='PackRGBDInputs')])  # fmt: skip
    cfg.train_dataloader.dataset = cfg.val_dataloader.dataset = data
    options = ReportOptions(parts=['depth'], size=(32, 48), pictures=10)
    encoders = {'run': [str(checkpoint)], 'untrained': [f'random:{checkpoint}']}
    card = report_encoders([cfg, load_config(configs[0])], encoders, options)
    run.val_dataloader.dataset.pop('indices')
    written = draw_reconstructions(
        run, str(checkpoint), tmp_path / 'drawn', indices=[0, 7], paste_kept=True
    )
    pictures = [dict(tiles) for _, tiles in card.pictures]
    shown = [[c for c in tiles if c.endswith(RECONSTRUCTION)] for tiles in pictures]
    assert shown == [[f'run: {RECONSTRUCTION}']] * 8 + [[]] * 2
    for found, expected in zip((pictures[0], pictures[7]), written[:2], strict=True):
        np.testing.assert_array_equal(
            found[f'run: {RECONSTRUCTION}'], np.asarray(Image.open(expected))
        )
    assert b'<figure class="wide">' in report_page(card.results, card.pictures)


ATTO = "type='mmpretrain.ConvNeXt', arch='atto', out_indices=(2,), gap_before_final_norm=False"


@pytest.mark.parametrize(
    ('backbone', 'grid', 'channels'),
    [
        ("type='mmpretrain.ResNet', depth=50, out_indices=(3,)", [2, 3], 2048),
        (ATTO, [4, 5], 160),
    ],
    ids=['ResNet-50', 'ConvNeXt'],
)
def test_backbones_of_mmpretrain(backbone, grid, channels, configs, tmp_path):
    """With weights from a file and without; they are told apart, and the last map is used."""
    plain = tmp_path / 'plain.py'
    plain.write_text(f'model = dict(backbone=dict({backbone}))')
    module = build_encoder('a', f'random:{plain}', (64, 90), seed=7).module
    torch.save(module.state_dict(), tmp_path / 'weights.pth')
    init_cfg = f"dict(type='Pretrained', checkpoint={str(tmp_path / 'weights.pth')!r})"
    trained = tmp_path / 'trained.py'
    trained.write_text(f'model = dict(backbone=dict({backbone}, init_cfg={init_cfg}))')
    cfgs = [load_config(path) for path in configs]
    options = ReportOptions(parts=['labels', 'correspondence'], size=(64, 90), pictures=1, seed=7)
    encoders = {
        'trained': [str(trained)],
        'same': [f'random:{plain}'],
        'other': [f'random:{plain}'] * 2,
    }
    card = report_encoders(cfgs, encoders, options)
    about = card.results['encoders']['trained']
    assert (about['grid'], about['channels']) == (grid, channels)
    for found in card.results['parts'].values():
        rows = found['by_row']['runs']
        assert rows['trained'] == rows['same']
        assert rows['other'][0] == rows['same'][0]
        assert rows['other'][1] != rows['same'][0]


def test_a_wrong_encoder_is_found_before_any_is_probed(configs, tmp_path):
    export(tmp_path / 'a.pth')
    encoders = {'right': [str(tmp_path / 'a.pth')], 'wrong': [str(tmp_path / 'missing.pth')]}
    said = []
    with pytest.raises(FileNotFoundError, match='missing'):
        report_encoders([load_config(configs[1])], encoders, ReportOptions(), said.append)
    assert said == ['reading frames']


def test_encoders_have_their_weights_and_normalisation(tmp_path):
    vit = export(tmp_path / 'enc.safetensors', seed=3)
    built = build_encoder('a', str(tmp_path / 'enc.safetensors'), (30, 45))
    assert built.size == (32, 48)
    for ours, theirs in zip(built.module.parameters(), vit.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    image = torch.tensor([10.0, 20, 30]).view(1, 3, 1, 1)  # BGR
    expected = [(30 - 123.675) / 58.395, (20 - 116.28) / 57.12, (10 - 103.53) / 57.375]
    torch.testing.assert_close(built.normalise(image).flatten(), torch.tensor(expected))
    same, other = (
        build_encoder('b', f'random:{tmp_path}/enc.safetensors', (32, 48), seed) for seed in (5, 6)
    )
    again = build_encoder('b', f'random:{tmp_path}/enc.safetensors', (32, 48), 5)
    weight = [e.module.patch_embed.projection.weight for e in (same, again, other, built)]
    assert torch.equal(weight[0], weight[1])
    assert not torch.equal(weight[0], weight[2])
    assert not torch.equal(weight[0], weight[3])
    # timm's, with the mean and deviation of its own weights.
    clip = build_encoder('c', 'random:timm:vit_tiny_patch16_224.augreg_in21k@48x70', (32, 48))
    assert isinstance(clip.module, TimmViT)
    assert clip.size == (48, 64)
    expected = torch.tensor([30.0, 20, 10]) / 127.5 - 1
    torch.testing.assert_close(clip.normalise(image).flatten(), expected, atol=1e-4, rtol=0)
    config = tmp_path / 'resnet.py'
    config.write_text(RESNET)
    caffe = build_encoder('d', f'random:{config}', (33, 50))
    assert caffe.size == (33, 50)
    expected = torch.tensor([10 - 103.53, 20 - 116.28, 30 - 123.675])
    torch.testing.assert_close(caffe.normalise(image).flatten(), expected)
    with pytest.raises(ValueError, match='names no weights'):
        build_encoder('d', str(config), (32, 48))
    with pytest.raises(FileNotFoundError, match='missing'):
        build_encoder('e', str(tmp_path / 'missing.pth'), (32, 48))


def test_mistakes_are_named(capsys):
    for arguments, message in (
        (['nofile'], 'expected NAME=ENCODER or random'),
        (['a=x,'], "expected NAME=ENCODER or random, got 'a=x,'"),
        (['a=x', 'a=y'], "two encoders are named 'a'"),
        (['random'], 'random needs an encoder'),
    ):
        with pytest.raises(SystemExit) as stop:
            parse_args([*arguments, '--data', 'c.py'])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    named = parse_args(['a=x.pth,y.pth', 'random', '--data', 'c.py']).encoders
    assert named == {'a': ['x.pth', 'y.pth'], 'random': ['random:x.pth']}
