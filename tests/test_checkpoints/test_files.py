"""No entry point runs code from a checkpoint; what mmengine and others write still loads."""

import argparse
import importlib.util
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.runner import Runner, load_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader, _load_checkpoint
from mmpretrain.models import VisionTransformer
from safetensors.torch import save_file

from mmmask3d import apis, register_all_modules
from mmmask3d.apis.encoders import build_encoder
from mmmask3d.checkpoints.download import cached_path
from mmmask3d.checkpoints.files import (
    CheckpointError,
    UnsafeCheckpointError,
    find_resumable_checkpoint,
    load_checkpoint_file,
    save_checkpoint_atomic,
)
from mmmask3d.checkpoints.locations import install_strict_loaders, read_checkpoint
from mmmask3d.engine import run_config
from mmmask3d.models import Mask3DPyramid, Mask3DViT
from mmmask3d.models.timm_vit import TimmViT
from mmmask3d.swap.encoder_file import encoder_settings
from mmmask3d.weights.extraction import extract
from mmmask3d.weights.publishing import publish
from mmmask3d.weights.translation import translate

ROOT = Path(__file__).resolve().parents[2]
ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
VIT = dict(arch=ARCH, img_size=(32, 48), patch_size=8)


class Payload:
    """Harmless: unpickling it creates the file it is given."""

    def __init__(self, trace):
        self.trace = str(trace)

    def __reduce__(self):
        return open, (self.trace, 'w')


def tool(path):
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / 'tools' / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def vit_state():
    torch.manual_seed(0)
    return Mask3DViT(**VIT).state_dict()


@pytest.fixture
def trace(tmp_path):
    return tmp_path / 'the_payload_ran'


@pytest.fixture
def payload_file(tmp_path, trace, vit_state):
    """A checkpoint of good weights with a payload in its meta data; it does run when unpickled."""
    path = tmp_path / 'payload.pth'
    meta = {'epoch': 1, 'iter': 4, 'hook': Payload(trace)}
    torch.save({'state_dict': vit_state, 'meta': meta}, path)
    torch.load(path, weights_only=False)
    assert trace.exists(), 'the payload of this test does nothing'
    trace.unlink()
    return path


# ---------------------------------------------------------------- a payload, at every entry point


def untouched():
    """Whether mmengine still has its own loaders."""
    return CheckpointLoader._schemes[''].__module__ == 'mmengine.runner.checkpoint'


def initialise(cls, path):
    cls(**VIT, init_cfg=dict(type='Pretrained', checkpoint=str(path))).init_weights()


def runner_config(config, tmp_path, **options):
    cfg = run_config.load_config(config, str(tmp_path / 'work'), options)
    cfg.experiment_name = tmp_path.name
    return cfg


def command(name, *arguments):
    """Run a tool in this process as its command line would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', [name, *map(str, arguments)])
        tool(name).main()


def train(config, tmp, *options):
    command('train.py', config, '--work-dir', tmp / 'work', *options)


# By our tools and functions, with mmengine's own loaders still in place.
OURS = {
    'init_cfg of Mask3DViT': lambda config, path, tmp: initialise(Mask3DViT, path),
    'init_cfg of Mask3DPyramid': lambda config, path, tmp: initialise(Mask3DPyramid, path),
    'init_cfg of TimmViT': lambda config, path, tmp: TimmViT(
        'vit_tiny_patch16_224', img_size=(32, 48), init_cfg=dict(
            type='Pretrained', checkpoint=str(path)
        ),
    ).init_weights(),
    'train.py, load_from': lambda config, path, tmp: train(
        config, tmp, '--cfg-options', f'load_from={path}'
    ),
    'train.py --resume': lambda config, path, tmp: train(config, tmp, '--resume', path),
    'train.py, init_cfg of the backbone': lambda config, path, tmp: train(
        config, tmp, '--cfg-options', 'model.backbone.init_cfg.type=Pretrained',
        f'model.backbone.init_cfg.checkpoint={path}',
    ),
    'train.py, init_cfg of the whole model': lambda config, path, tmp: train(
        config, tmp, '--cfg-options', 'model.init_cfg.type=Pretrained',
        f'model.init_cfg.checkpoint={path}',
    ),
    'test.py': lambda config, path, tmp: command(
        'test.py', config, path, '--work-dir', tmp / 'work'
    ),
    'visualize_reconstruction.py': lambda config, path, tmp: tool(
        'analysis_tools/visualize_reconstruction.py'
    ).main([str(config), str(path), '--out-dir', str(tmp / 'pictures')]),
    'extract': lambda config, path, tmp: extract(
        str(path), str(tmp / 'out.pth'), str(config), None
    ),
    'convert_weights': lambda config, path, tmp: translate(str(path), str(tmp / 'out.pth')),
    'report': lambda config, path, tmp: build_encoder('a', str(path), (32, 48)),
    'publish': lambda config, path, tmp: publish(
        path, tmp / 'out', data_license='mine', terms='CC0-1.0'
    ),
    'swap': lambda config, path, tmp: encoder_settings(str(path)),
    'get_model, pretrained': lambda config, path, tmp: apis.get_model(config, pretrained=path),
    'get_model, init_cfg': lambda config, path, tmp: apis.get_model(
        config, init_cfg=dict(type='Pretrained', checkpoint=str(path))
    ),
    'inferencer': lambda config, path, tmp: apis.MaskedRGBDInferencer(config, path),
    'read_checkpoint': lambda config, path, tmp: read_checkpoint(path),
    'load_checkpoint_file': lambda config, path, tmp: load_checkpoint_file(path),
}  # fmt: skip
# By mmengine in a program of the user's, which has called register_all_modules.
MMENGINE = {
    'init_cfg of a model of mmpretrain': lambda config, path, tmp: initialise(
        VisionTransformer, path
    ),
    'load_from': lambda config, path, tmp: Runner.from_cfg(
        runner_config(config, tmp, load_from=str(path))
    ).train(),
    'load_checkpoint': lambda config, path, tmp: load_checkpoint(Mask3DViT(**VIT), str(path)),
    '_load_checkpoint': lambda config, path, tmp: _load_checkpoint(str(path)),
}


def check_refused(entry, config, path, trace, tmp_path):
    with pytest.raises(UnsafeCheckpointError, match='full unpickling') as error:
        entry(config, path, tmp_path)
    assert not trace.exists(), 'the payload ran'
    message = str(error.value)
    assert str(path) in message
    assert 'open' in message  # what the file asks for
    assert 'weights_only=False' in message  # the cure
    assert not [*tmp_path.glob('out*')]


@pytest.mark.parametrize('entry', OURS)
def test_payload_is_refused(entry, tiny_config, payload_file, trace, tmp_path):
    assert untouched()
    check_refused(OURS[entry], tiny_config, payload_file, trace, tmp_path)


@pytest.mark.parametrize('entry', MMENGINE)
def test_payload_is_refused_by_mmengine(entry, tiny_config, payload_file, trace, tmp_path):
    assert untouched()
    register_all_modules(init_default_scope=False)
    check_refused(MMENGINE[entry], tiny_config, payload_file, trace, tmp_path)


def test_loaders_of_others_stay():
    def load_from_theirs(filename, map_location):
        return {'theirs': filename}

    CheckpointLoader.register_scheme('theirs://', loader=load_from_theirs)
    install_strict_loaders()
    assert CheckpointLoader.load_checkpoint('theirs://x') == {'theirs': 'theirs://x'}
    with pytest.raises(CheckpointError, match='s3://x: expected a local path or one of'):
        CheckpointLoader.load_checkpoint('s3://x')


def test_payload_under_the_http_scheme(payload_file, trace, monkeypatch, tmp_path):
    """mmengine's own loader for URLs unpickles without even trying to be careful."""
    install_strict_loaders()
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    cached = cached_path('https://example.org/payload.pth')
    cached.parent.mkdir(parents=True)
    payload_file.rename(cached)
    with pytest.raises(UnsafeCheckpointError, match='full unpickling'):
        CheckpointLoader.load_checkpoint('https://example.org/payload.pth', map_location='cpu')
    assert not trace.exists()


def test_options_of_the_original_mae_are_read_as_a_dict(tmp_path, trace):
    """MAE, MultiMAE and DeiT keep an argparse.Namespace beside the weights."""
    path = tmp_path / 'checkpoint-799.pth'
    args = argparse.Namespace(lr=1e-3, betas=(0.9, [0.95]), inner=argparse.Namespace(k=3))
    torch.save({'model': {'a': torch.ones(2)}, 'args': args}, path)
    loaded = load_checkpoint_file(path)
    assert loaded['args'] == {'lr': 1e-3, 'betas': (0.9, [0.95]), 'inner': {'k': 3}}
    for bad in (argparse.Namespace(p=Payload(trace)), argparse.Namespace, [argparse.Namespace]):
        torch.save({'model': {'a': torch.ones(2)}, 'args': bad}, path)
        with pytest.raises(UnsafeCheckpointError):
            load_checkpoint_file(path)
    assert not trace.exists()


def test_payload_in_other_places_and_formats(tmp_path, trace):
    """In the old file format, as a bare pickle, behind a class that torch would allow."""
    path = tmp_path / 'old.pth'
    torch.save({'x': Payload(trace)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UnsafeCheckpointError):
        load_checkpoint_file(path)
    path.write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(CheckpointError):
        load_checkpoint_file(path)
    assert not trace.exists()


def test_items_are_set_on_dictionaries_and_tensors_stay_within_their_storage(tmp_path):
    """torch 2.9.1 sets an item on a tensor, and reads beyond the end of a storage."""
    path = tmp_path / 'x.pth'
    torch.save({'x': torch.arange(4.0)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in entries if name.endswith('/data.pkl'))
    (storage,) = (name for name in entries if name.endswith('/data/0'))

    def write(**changed):
        with zipfile.ZipFile(path, 'w') as archive:
            for key, content in {**entries, **changed}.items():
                archive.writestr(key, content)

    write()
    assert load_checkpoint_file(path)['x'].tolist() == [0, 1, 2, 3]
    write(**{storage: entries[storage][:4]})
    with pytest.raises(CheckpointError, match='holds 4 bytes, but 16 are announced'):
        load_checkpoint_file(path)
    tensor = entries[name][entries[name].index(b'ctorch._utils') : entries[name].rindex(b's.')]
    write(**{name: b'\x80\x02' + tensor + b'K\x00G' + struct.pack('>d', 7.0) + b's.'})
    with pytest.raises(UnsafeCheckpointError, match='other than a dict or list as a container'):
        load_checkpoint_file(path)


def test_numpy_arrays_of_objects_are_refused(tmp_path, trace):
    path = tmp_path / 'x.pth'
    for bad in (
        np.array([Payload(trace)], dtype=object),
        np.zeros(2, dtype=[('a', 'i4'), ('b', 'O')]),
        np.dtype('O'),
        HistoryBuffer,
        getattr,
    ):
        torch.save({'x': bad}, path)
        with pytest.raises(UnsafeCheckpointError):
            load_checkpoint_file(path)
    assert not trace.exists()


def test_allowing_a_class_process_wide_does_not_open_our_loader(tmp_path, trace):
    """mmengine itself adds `getattr` to torch's list, from which every function can be reached."""
    path = tmp_path / 'payload.pth'
    torch.save({'x': Payload(trace)}, path)
    with torch.serialization.safe_globals([open]), pytest.raises(UnsafeCheckpointError):
        load_checkpoint_file(path)
    assert not trace.exists()


def test_config_text_in_a_checkpoint_is_not_run(tiny_config, tmp_path, trace):
    """`Runner.resume` would run meta['config'] as Python."""
    work = tmp_path / 'work'
    Runner.from_cfg(runner_config(tiny_config, tmp_path)).train()
    path = work / 'epoch_1.pth'
    checkpoint = load_checkpoint_file(path)
    checkpoint['meta']['config'] = f'open({str(trace)!r}, "w")\n'
    torch.save(checkpoint, path)
    train(tiny_config, tmp_path, '--resume', path)
    assert not trace.exists()


# ---------------------------------------------------------------- what must still load


def test_what_mmengine_writes(tmp_path, vit_state):
    """Histories of the message hub, numpy scalars and arrays, dtypes and plain containers."""
    history = HistoryBuffer([1.0, 2.0, 3.0], [1, 1, 2])
    scores = {
        'int': np.int64(3),
        'float': np.float32(0.5),
        'bool': np.bool_(True),
        'array': np.arange(6, dtype=np.int32).reshape(2, 3),
        'names': ('wall', b'', None, {1, 2}),
    }
    hub = {'log_scalars': {'train/loss': history}, 'runtime_info': {'epoch': 1}}
    path = tmp_path / 'epoch_1.pth'
    torch.save({'meta': {'scores': scores}, 'state_dict': vit_state, 'message_hub': hub}, path)
    loaded = load_checkpoint_file(path)
    found = loaded['meta']['scores']
    assert found['int'] == 3
    assert isinstance(found['int'], np.int64)
    assert found['float'].dtype == np.float32
    assert found['bool'].dtype == np.bool_
    np.testing.assert_array_equal(found['array'], scores['array'])
    assert found['names'] == scores['names']
    buffer = loaded['message_hub']['log_scalars']['train/loss']
    assert isinstance(buffer, HistoryBuffer)
    assert buffer.mean() == pytest.approx(6 / 4)  # the sum of the values over that of the counts
    assert buffer.current() == 3.0
    buffer.update(5.0)
    for key, value in vit_state.items():
        assert torch.equal(loaded['state_dict'][key], value)


def test_config_objects_in_meta_are_refused_with_the_cure(tmp_path, vit_state, trace):
    """Old checkpoints hold ConfigDict objects: the message says how to keep the weights."""
    old, new = tmp_path / 'old.pth', tmp_path / 'new.pth'
    cfg = ConfigDict(Config(dict(model=dict(type='X')))._cfg_dict)
    torch.save({'meta': {'cfg': cfg}, 'state_dict': vit_state}, old)
    with pytest.raises(UnsafeCheckpointError, match='ConfigDict') as error:
        load_checkpoint_file(old)
    # follow the advice word for word
    advice = str(error.value).split('`')[1]
    exec(advice.replace('NEW_FILE', repr(str(new))).replace('FILE', repr(str(old))))
    assert load_checkpoint_file(new)['state_dict'].keys() == vit_state.keys()


def test_safetensors(tmp_path, vit_state):
    path = tmp_path / 'encoder.safetensors'
    save_file({k: v.contiguous() for k, v in vit_state.items()}, path, metadata={'method': 'x'})
    loaded = load_checkpoint_file(path)
    assert loaded['meta'] == {'method': 'x'}
    model = Mask3DViT(**VIT, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model.init_weights()
    for key, value in model.state_dict().items():
        assert torch.equal(value, vit_state[key])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r'encoder\.safetensors: the file is damaged'):
        load_checkpoint_file(path)


def test_another_architecture(tmp_path, vit_state):
    path = tmp_path / 'encoder.pth'
    save_checkpoint_atomic({'state_dict': vit_state}, path)
    wide = {**VIT, 'arch': {**ARCH, 'embed_dims': 72, 'num_layers': 3}}
    model = Mask3DViT(**wide, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    with pytest.raises(RuntimeError, match='does not fill this Mask3DViT') as error:
        model.init_weights()
    assert 'layers.2.ln1.weight' in str(error.value)
    assert '(here (72,' in str(error.value)


# ---------------------------------------------------------------- damaged files


@pytest.mark.parametrize('keep', [0.2, 0.6, 0.99])
def test_truncated(tmp_path, vit_state, keep):
    path = tmp_path / 'epoch_1.pth'
    torch.save({'state_dict': vit_state}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(CheckpointError, match=r'epoch_1\.pth: .*damaged or incomplete') as error:
        load_checkpoint_file(path)
    assert f'{path.stat().st_size} bytes' in str(error.value)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'', 'an empty file'),
        (b'<!DOCTYPE html><html>not found</html>', 'not a checkpoint'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'Git LFS pointer'),
    ],
)
def test_not_a_checkpoint(tmp_path, content, message):
    path = tmp_path / 'x.pth'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint_file(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match='there is nothing at this path'):
        load_checkpoint_file(tmp_path / 'x.pth')
    with pytest.raises(FileNotFoundError, match='there is a folder at this path'):
        load_checkpoint_file(tmp_path)


def test_something_else_than_a_dict(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / 'x.pth')
    with pytest.raises(CheckpointError, match=r'x\.pth: the file holds a list'):
        load_checkpoint_file(tmp_path / 'x.pth')


# ---------------------------------------------------------------- writing, and finding


def test_newest_complete_checkpoint_is_found(tmp_path):
    for epoch in (1, 2, 10):
        meta = {'epoch': epoch, 'iter': 4 * epoch}
        save_checkpoint_atomic({'meta': meta, 'state_dict': {}}, tmp_path / f'epoch_{epoch}.pth')
    log = []
    assert find_resumable_checkpoint(tmp_path, log.append) == str(tmp_path / 'epoch_10.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_11.pth'))
    assert find_resumable_checkpoint(tmp_path, log.append) == str(tmp_path / 'epoch_10.pth')
    assert log == [
        f'{tmp_path}/epoch_11.pth is missing, incomplete or cannot be resumed from: passed over.'
    ]
    newest = tmp_path / 'epoch_10.pth'
    newest.write_bytes(newest.read_bytes()[:300])
    assert find_resumable_checkpoint(tmp_path, log.append) == str(tmp_path / 'epoch_2.pth')
    assert f'{newest} is missing, incomplete or cannot be resumed from: passed over.' in log
    assert find_resumable_checkpoint(tmp_path / 'none', log.append) is None


def test_interrupted_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'epoch_1.pth'
    save_checkpoint_atomic({'x': 1}, path)

    def fail(*args):
        raise OSError('no space left on device')

    monkeypatch.setattr('os.fsync', fail)
    with pytest.raises(OSError, match='no space left'):
        save_checkpoint_atomic({'x': 2}, path)
    assert load_checkpoint_file(path) == {'x': 1}
    assert [p.name for p in tmp_path.iterdir()] == ['epoch_1.pth']
