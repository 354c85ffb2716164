"""What the README shows works as printed: the config for own frames, the export, the backbone."""

import re
from pathlib import Path

import cv2
import pytest
import torch

import mmmask3d
from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.models import TimmViT

REPO = Path(mmmask3d.__file__).parents[1]
README = (REPO / 'README.md').read_text()

NAME = 'vit_small_patch14_dinov2.lvd142m'
SMALL = dict(embed_dim=48, num_heads=3)


def blocks(language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', README, flags=re.M | re.S)


@pytest.fixture(scope='module')
def trained(make_rgbd_folder, tmp_path_factory, run_script):
    """Folder with the README's config, trained as long as it says with a small encoder."""
    folder = tmp_path_factory.mktemp('readme')
    frames = make_rgbd_folder(folder / 'frames', 4, (60, 80))
    (frames / 'splits').mkdir()
    for path in (frames / 'rgb').glob('*.png'):
        cv2.imwrite(str(path.with_suffix('.jpg')), cv2.imread(str(path)))
        path.unlink()
    for split, names in (('train', 'frame_000\nframe_001\n'), ('val', 'frame_002\nframe_003\n')):
        (frames / 'splits' / f'{split}.txt').write_text(names)
    (config,) = blocks('python')
    assert len(config.strip().splitlines()) <= 15
    assert '/data/my_frames' in config
    (folder / 'my_config.py').write_text(config.replace('/data/my_frames', str(frames)))
    torch.manual_seed(0)
    torch.save(dict(state_dict=TimmViT(NAME, model_args=SMALL).state_dict()), folder / 'dino.pth')
    small = [
        f'model.backbone.pretrained={folder / "dino.pth"}',
        *(f'model.backbone.model_args.{key}={value}' for key, value in SMALL.items()),
        *(
            f'{name}_dataloader.{setting}'
            for name in ('train', 'val')
            for setting in ('batch_size=2', 'num_workers=0', 'persistent_workers=False')
        ),
    ]
    train = ['my_config.py', '--work-dir', 'work_dirs/mine', '--cfg-options', *small]
    return folder, run_script(REPO / 'tools/train.py', *train, cwd=folder)


def test_the_config_for_own_frames_trains_and_is_validated(trained):
    _, log = trained
    assert 'loss_anchor' in log
    assert '2 metric, 0 relative' in log


def test_the_config_for_own_frames_is_checked_and_drawn(trained, load_tool, tmp_path, capsys):
    folder, _ = trained
    config = str(folder / 'my_config.py')
    assert 'mmmask3d check my_config.py --html check.html' in README
    check = load_tool('analysis_tools/check_rgbd.py').main
    assert check([config, '--html', str(tmp_path / 'check.html'), '--quiet']) == 0
    report = capsys.readouterr().out
    assert report.count('2 frames of 80x60') == 2  # train, and val that is test as well
    assert '0 errors' in report
    assert (tmp_path / 'check.html').read_bytes().startswith(b'<!DOCTYPE html>')
    browse = load_tool('analysis_tools/browse_rgbd.py').main
    for options, rows in (([], 4), (['--pipeline', '--draws', '3'], 6)):
        out = tmp_path / f'look{len(options)}'
        assert browse([config, '--out-dir', str(out), *options]) == 0
        assert (out / 'index.html').read_text().count('data:image/jpeg') == rows


def test_the_export_loads_into_a_backbone(trained, run_script):
    folder, _ = trained
    export = REPO / 'tools/model_converters/extract_backbone.py'
    assert 'mmmask3d extract work_dirs/mine/epoch_8.pth encoder.pth' in README
    run_script(export, 'work_dirs/mine/epoch_8.pth', 'encoder.pth', cwd=folder)
    init_cfg = dict(type='Pretrained', checkpoint=str(folder / 'encoder.pth'))
    size = dict(img_size=(168, 224), patch_size=14)
    backbone = TimmViT(NAME, model_args=SMALL, init_cfg=init_cfg, **size)
    backbone.init_weights()
    saved = load_checkpoint_file(folder / 'work_dirs/mine/epoch_8.pth')['state_dict']
    start = load_checkpoint_file(folder / 'dino.pth')['state_dict']
    moved = set()
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, saved[f'backbone.{name}']), name
        if value.shape == start[name].shape and not torch.equal(value, start[name]):
            moved.add(name.split('.')[2] if 'blocks' in name else name)
    trained_layers = {str(layer) for layer in range(4, 12)}
    assert moved == trained_layers | {'trunk.norm.weight', 'trunk.norm.bias'}


def test_links_lead_somewhere():
    pages = [REPO / 'README.md', REPO / 'CONTRIBUTING.md', *(REPO / 'docs').rglob('*.md')]
    for page in pages:
        for target in re.findall(r'\]\((?!https?:)([^)#]+)', page.read_text()):
            assert (page.parent / target).exists(), f'{page.relative_to(REPO)}: {target}'
