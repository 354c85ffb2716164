"""Code blocks of README and docs run on generated rooms; what cannot run is named with a reason.

Commands run within this process, as ``python`` would run them. Those that do not run are at least
given to their tools, up to where the work would begin, so that every option and path exists.
"""

import argparse
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config, DictAction
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn

import mmmask3d
from mmmask3d import preflight
from mmmask3d.apis import get_model
from mmmask3d.cli.main import main
from mmmask3d.datasets import resolve_masking
from mmmask3d.engine.run_config import load_config
from mmmask3d.models import Mask3DViT
from mmmask3d.registry import HOOKS, TRANSFORMS

ROOT = Path(mmmask3d.__file__).parents[1]
PAGES = ['README.md', 'CONTRIBUTING.md'] + sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / 'docs').rglob('*.md')
)
MAKEFILE = (ROOT / 'Makefile').read_text()
PROJECT = (ROOT / 'pyproject.toml').read_text()


class Block(NamedTuple):
    page: str
    language: str
    text: str

    def commands(self) -> list[str]:
        """Lines of a shell block, continued ones joined, without comments."""
        lines = self.text.replace('\\\n', ' ').splitlines()
        return [line for line in lines if line.strip() and not line.startswith('#')]


def blocks_of(page: str) -> list[Block]:
    found = re.findall(r'^```(\w*)\n(.*?)^```', (ROOT / page).read_text(), flags=re.M | re.S)
    return [Block(page, language, text) for language, text in found]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = [(b.page, c) for b in BLOCKS if b.language == 'bash' for c in b.commands()]

# Pages that are run from top to bottom below.
RUN = {
    'docs/checking_data.md',
    'docs/datasets/predicted_depth.md',
    'docs/datasets/your_frames.md',
    'docs/deployment.md',
    'docs/inference.md',
    'docs/method.md',
    'docs/model_zoo.md',
}
# Commands on these pages that are not run, by how they begin.
NOT_RUN_THERE = {
    'mmmask3d convert rooms': 'the fixture tiny_rooms has made them',
    'python tools/misc/make_rooms_encoder.py': 'trains for an hour',
    'mmmask3d export-onnx my_': 'needs a trained model: test_export_onnx.py has some',
    'mmmask3d publish': 'needs a trained model: test_publish_model.py has one',
}
# (page, what the blocks hold, why they are not run here)
NOT_RUN = [
    ('README.md', 'make demo', 'installs everything, and this is what CI runs'),
    ('README.md', 'my_config.py', 'test_readme.py runs it'),
    ('README.md', 'frames = dict', 'test_readme.py trains with it'),
    ('README.md', 'mmmask3d swap', 'test_transfer_doc.py runs the same command'),
    ('CONTRIBUTING.md', 'make', 'this is what CI runs'),
    ('docs/installation.md', 'pip install', 'installs'),
    ('docs/backbones.md', 'backbone = dict', 'test_backbones_doc.py builds it'),
    ('docs/backbones.md', 'backbone_speed.py', 'needs a clone of mmdetection, takes an hour'),
    ('docs/data_format.md', 'dict(', 'test_data_format_doc.py reads frames with it'),
    ('docs/data_format.md', 'mmmask3d pack', 'test_pack_lmdb.py runs the three commands'),
    ('docs/data_format.md', 'reading_speed.py', 'measures; test_reading_speed.py runs it'),
    ('docs/datasets/README.md', 'NAME', 'stands for any converter'),
    ('docs/datasets/cityscapes.md', 'data/raw', 'data to be downloaded'),
    ('docs/datasets/nyuv2.md', 'nyu', 'data to be downloaded'),
    ('docs/datasets/phones.md', 'ffmpeg', 'needs ffmpeg and a video'),
    ('docs/datasets/phones.md', 'data/raw', 'test_phones_doc.py runs it on made recordings'),
    ('docs/datasets/rooms.md', '--rooms 60', 'minutes; test_rooms.py generates some'),
    ('docs/datasets/scannet.md', 'convert scannet', 'data to be downloaded'),
    ('docs/datasets/seven_scenes.md', 'seven_scenes', 'data to be downloaded'),
    ('docs/datasets/sunrgbd.md', 'sunrgbd', 'data to be downloaded'),
    ('docs/datasets/tum.md', 'data/raw', 'data to be downloaded'),
    ('docs/evaluation.md', 'mmmask3d reconstruct', 'needs a trained model'),
    ('docs/report_card.md', 'mmmask3d report', 'test_report_encoder.py runs it on tiny rooms'),
    ('docs/report_card.md', 'ProbeHook', 'test_probe_hook_of_report_card runs it'),
    ('docs/results.md', 'mini', 'hours of training'),
    ('docs/results.md', 'anchored', 'hours of training'),
    ('docs/results.md', 'frames = dict', 'names data to be downloaded'),
    ('docs/results.md', 'backbone_speed.py', 'needs a clone of MultiMAE'),
    ('docs/training.md', 'mmmask3d train', 'trains: test_train_and_test_tools.py does it in small'),
    ('docs/training.md', 'dist_train.sh', 'needs GPUs, machines or Slurm'),
    ('docs/training.md', 'LoRAEncoder', 'needs weights: test_lora.py builds small ones'),
    ('docs/training.md', 'mmmask3d extract', 'needs a trained model: test_adapters.py has one'),
    ('docs/training.md', 'init_cfg', 'test_adapters.py reads an adapter in this way'),
    ('docs/training.md', 'EMAHook', 'test_exact_resume.py trains with it'),
    ('docs/training.md', 'mmmask3d interpolate', 'test_wise_ft.py runs it'),
    ('docs/training.md', 'LayerDecay', 'test_optimizer_of_training builds it'),
    ('docs/transfer.md', 'mmmask3d swap', 'test_transfer_doc.py runs it'),
    ('docs/transfer.md', '_base_', 'test_all_configs.py builds it'),
    ('docs/transfer.md', 'ImageClassifier', 'test_all_configs.py builds it'),
    ('docs/transfer.md', 'mmmask3d train', 'hours of training'),
    ('docs/transfer.md', 'mmmask3d extract', 'needs a trained model: test_readme.py has one'),
    ('docs/transfer.md', 'compare_pretraining.py', 'hours of training'),
    ('docs/weights.md', 'init_cfg', 'test_weights_docs.py reads each'),
    ('docs/weights.md', 'build_encoder', 'test_weights_docs.py runs it on small encoders'),
    ('docs/weights.md', 'mmmask3d convert-weights', 'weights to be downloaded'),
    ('docs/weights.md', 'mmmask3d train', 'needs GPUs and ScanNet'),
]
# Programs that are not ours, and stand in a shell block.
FOREIGN = ('(cd ', 'cd ', 'ffmpeg ', 'grep ', 'mkdir ', 'pre-commit ', 'unzip ')


def test_every_block_says_its_language():
    assert len(BLOCKS) > 80
    assert [b for b in BLOCKS if b.language not in ('bash', 'python', 'text')] == []


def test_every_block_runs_or_has_a_reason():
    code = [b for b in BLOCKS if b.language != 'text' and b.page not in RUN]
    used = set()
    for block in code:
        reasons = [r for r in NOT_RUN if r[0] == block.page and r[1] in block.text]
        assert reasons, f'neither run nor excused, {block.page}:\n{block.text}'
        used.update(reasons)
    assert used == set(NOT_RUN)


def test_words_are_usual_ones():
    """Phrases that read translated, in the docs and in what users read of the code."""
    phrases = r'\banew\b|plain words|\bto be had\b|\b(are|is) had\b|of which it can'
    code = [p for folder in ('mmmask3d', 'tools') for p in (ROOT / folder).rglob('*.py')]
    for path in [*(ROOT / page for page in PAGES), *code]:
        found = re.search(phrases, ' '.join(path.read_text().split()), re.I)
        assert found is None, f'{path.relative_to(ROOT)}: {found[0]}'


class Understood(Exception):
    """A command line was taken, and the work would begin now."""


@pytest.fixture
def stop_at_work(monkeypatch):
    def stop(*_, **__):
        raise Understood

    monkeypatch.setattr('mmmask3d.cli.start.check_environment', stop)
    monkeypatch.setattr('mmmask3d.conversion.command_line.JobOptions', stop)


def call(words: list[str], monkeypatch) -> int:
    """Do what ``python WORDS`` would, and return the exit code."""
    monkeypatch.setattr(sys, 'argv', words)
    try:
        runpy.run_path(str(ROOT / words[0]), run_name='__main__')
    except SystemExit as stop:
        return stop.code or 0
    return 0


def understand(command: str, monkeypatch) -> None:
    words = shlex.split(command, comments=True)
    while '=' in words[0]:  # NNODES=2 tools/dist_train.sh ...
        del words[0]
    for word in words:
        if word.startswith(('configs/', 'tools/', 'requirements/')):
            assert (ROOT / word).exists(), word
    match words:
        case ['mmmask3d', 'convert', 'NAME', *_]:
            return
        case ['python', 'tools/misc/build_mmcv_ops.py', *options]:
            assert options == ['--install']
        case ['python', '-m', 'mmmask3d.preflight', *options]:
            assert preflight.main(options) == 0
        case ['mmmask3d', *options]:
            with pytest.raises(Understood):
                main(options)
        case ['python', *words]:
            with pytest.raises(Understood):
                pytest.fail(f'{command}: exit code {call(words, monkeypatch)}')
        case ['tools/dist_train.sh', config, processes, *options]:
            assert processes.isdigit()
            understand(shlex.join(['python', 'tools/train.py', config, *options]), monkeypatch)
        case ['tools/dist_test.sh', config, checkpoint, processes, *options]:
            assert processes.isdigit()
            words = ['python', 'tools/test.py', config, checkpoint, *options]
            understand(shlex.join(words), monkeypatch)
        case ['tools/slurm_train.sh', _, _, config, folder, *options]:
            words = ['python', 'tools/train.py', config, '--work-dir', folder, *options]
            understand(shlex.join(words), monkeypatch)
        case ['make', target, *_]:
            assert re.search(rf'^{target}:', MAKEFILE, re.M), command
        case ['pip', 'install', '-e', what]:
            for extra in re.findall(r'\w+', what):
                assert re.search(rf'^{extra} = ', PROJECT, re.M), extra
        case ['pip', 'install', *_]:
            pass
        case _:
            assert command.startswith(FOREIGN), command


@pytest.mark.parametrize(('page', 'command'), COMMANDS)
def test_commands_are_understood(page, command, stop_at_work, monkeypatch):
    understand(command, monkeypatch)


OPTIONS = [
    (page, shlex.split(command, comments=True)[2:])
    for page, command in COMMANDS
    if command.startswith(('python tools/train.py configs/', 'mmmask3d train configs/'))
    and '--cfg-options' in command
]


@pytest.mark.parametrize(('page', 'words'), OPTIONS)
def test_options_change_settings_that_exist(page, words):
    """A misspelt key would be added to the config without a word and do nothing."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    parsed = parser.parse_known_args(words)[0].cfg_options
    cfg = load_config(ROOT / words[0])
    for key in parsed:
        parent, _, last = key.rpartition('.')
        if parent.endswith('init_cfg'):
            parent, last = parent.rpartition('.')[0], 'init_cfg'
        holder = cfg
        for part in parent.split('.'):
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        encoder = str(holder.get('type')).split('.')[-1] in ('Mask3DViT', 'Mask3DPyramid')
        assert last in holder or encoder, f'{page}: {words[0]} has no {key}'
    load_config(ROOT / words[0], cfg_options=parsed)


@pytest.fixture
def run_page(tiny_rooms, tmp_path, monkeypatch, capsys):
    """Function that runs a page from top to bottom, and yields after each block.

    Yields (block, variables of the Python blocks, what the commands printed).
    """
    monkeypatch.chdir(tmp_path)
    Path('data').mkdir()
    Path('data/rooms').symlink_to(tiny_rooms)
    Path('configs').symlink_to(ROOT / 'configs')

    def run(page: str, replace: dict[str, str] | None = None) -> Iterator[tuple]:
        values: dict = {}
        for block in blocks_of(page):
            printed = ''
            if block.language == 'python':
                exec(block.text, values)
            elif block.language == 'bash':
                for command in block.commands():
                    for old, new in (replace or {}).items():
                        command = command.replace(old, new)
                    if command.startswith(tuple(NOT_RUN_THERE)):
                        continue
                    if command.startswith('mmmask3d '):
                        assert main(shlex.split(command)[1:]) == 0, command
                    elif command.startswith('python '):
                        assert call(shlex.split(command)[1:], monkeypatch) == 0, command
                    else:
                        subprocess.run(command, shell=True, check=True)
                    printed += capsys.readouterr().out
            yield block, values, printed

    return run


@pytest.mark.parametrize('page', ['your_frames', 'predicted_depth'])
def test_pages_of_general_converters(page, run_page):
    """What the first conversion prints is what the page shows."""
    steps = list(run_page(f'docs/datasets/{page}.md'))
    printed = next(said for _, _, said in steps if said)
    shown = next(block.text for block, *_ in steps if block.language == 'text')
    assert shown.startswith(f'data/{page.replace("your", "my").replace("_depth", "")}')
    assert printed == shown
    if page == 'your_frames':
        assert len(Path('data/my_pairs/splits/all.txt').read_text().splitlines()) == 6
        assert len(Path('data/my_index/splits/all.txt').read_text().splitlines()) == 6
        assert not Path('data/my_index/rgb').exists()


def test_page_of_checking(run_page):
    fewer = {'--pool 100 --draws 20': '--pool 6 --draws 1', '--shift 0 2 4 8 16 ': '--shift 0 8 '}
    said = ''.join(text for _, _, text in run_page('docs/checking_data.md', fewer))
    assert said.count('data/rooms: 6 frames of 128x96') == 1
    assert said.count('0 errors') == 2
    shown, *_ = (b.text for b in blocks_of('docs/checking_data.md') if b.language == 'text')
    kinds = ('data/rooms:', '  depth:', '  splits:')
    for line in (line for line in shown.splitlines() if line.startswith(kinds)):
        form = re.sub(r'[\d.]+', '#', line)  # of another number of frames here
        assert form in re.sub(r'[\d.]+', '#', said).splitlines(), line
    assert Path('check.html').read_bytes().startswith(b'<!DOCTYPE html>')
    for folder, rows in (('look', 6), ('look_pipeline', 12)):
        assert Path(folder, 'index.html').read_text().count('data:image/jpeg') == rows


def test_page_of_inference(run_page):
    names = {f'room_{r:04d}_view_{v:02d}' for r in range(3) for v in range(2)}
    steps = [step for step in run_page('docs/inference.md') if step[0].language == 'python']
    assert len(steps) == 4
    assert {p.stem for p in Path('pictures').iterdir()} == names
    assert {p.stem for p in Path().glob('*.npy')} == names
    values = steps[-1][1]
    assert len(values['results']['visualization']) == 6
    assert values['features'][0][-1].shape == (192, 12, 16)
    (result, *_) = values['inferencer']('data/rooms')['predictions']
    assert result['unit'] == 'standardised'
    assert result['prediction'].shape == (96, 128)
    # The shipped weights know these rooms' kind, from RGB alone.
    truth = cv2.imread(f'data/rooms/depth/{result["frame"]}.png', cv2.IMREAD_UNCHANGED)
    seen = result['prediction'][result['valid']], truth[result['valid']]
    assert np.corrcoef(*seen)[0, 1] > 0.7


def test_page_of_deployment(run_page):
    *_, (_, values, _) = run_page('docs/deployment.md')
    name = 'distilled_vit-mini_b32-6e_rooms-96x128'
    encoder = get_model(name, pretrained=True).backbone
    with torch.no_grad():
        (expected,) = encoder(torch.from_numpy(values['batch']))
    assert values['batch'].shape == (1, 3, 96, 128)
    np.testing.assert_allclose(values['features'], expected.numpy(), atol=1e-4)


def test_page_of_the_zoo(run_page):
    *_, (_, values, _) = run_page('docs/model_zoo.md')
    assert type(values['encoder']).__name__ == 'Mask3DViT'
    assert values['model'].backbone.out_indices == (1, 3, 5)
    assert values['init_cfg']['checkpoint'].startswith('mmmask3d://')


def test_masks_of_the_method(run_page):
    *_, (_, values, _) = run_page('docs/method.md')
    cfg = load_config(ROOT / 'configs/mask3d/mask3d_vit-tiny_b32-100e_rooms-240x320.py')
    cfg.masking = values['masking']
    cfg.train_dataloader.dataset.pipeline = values['kinect_pipeline']
    resolve_masking(cfg)
    for name, depth_ratio in (('train_dataloader', 0.9), ('val_dataloader', 0.8)):
        (step,) = (s for s in cfg[name].dataset.pipeline if s['type'] == 'DepthAwareMasking')
        with DefaultScope.overwrite_default_scope('mmmask3d'):
            masking = TRANSFORMS.build(step)
        assert (masking.rgb_ratio, masking.depth_ratio) == (0.8, depth_ratio)


def config_of(page: str, variable: str):
    (block,) = (b for b in BLOCKS if b.page == page and f'\n{variable} = ' in f'\n{b.text}')
    return Config.fromstring(block.text, '.py')[variable]


def test_probe_hook_of_report_card(tiny_rooms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('data').mkdir()
    Path('data/rooms').symlink_to(tiny_rooms)
    (settings,) = config_of('docs/report_card.md', 'custom_hooks')
    with DefaultScope.overwrite_default_scope('mmmask3d'):
        hook = HOOKS.build(settings)
        hook.before_train(runner=None)
    assert [len(dataset) for dataset in hook._datasets] == [4, 2]


def test_optimizer_of_training():
    settings = config_of('docs/training.md', 'optim_wrapper')
    model = nn.Module()
    model.backbone = Mask3DViT(arch='deit-tiny', img_size=32)
    optimizer = build_optim_wrapper(model, settings).optimizer
    rates = {group['lr'] for group in optimizer.param_groups}
    assert max(rates) == pytest.approx(1e-4)
    assert min(rates) == pytest.approx(1e-4 * 0.7**13)
