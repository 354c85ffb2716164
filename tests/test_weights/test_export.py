import hashlib
import json
import struct

import pytest
import torch
from mmengine.config import Config
from mmpretrain.models import VisionTransformer
from torch import nn

from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.models import Mask3DViT
from mmmask3d.models import encoder_record as record
from mmmask3d.weights import export

ARCH = dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96)
BACKBONE = dict(type='mmmask3d.Mask3DViT', arch=ARCH, img_size=(32, 72), patch_size=8)
CONFIG = dict(
    model=dict(
        type='mmmask3d.MaskedRGBD',
        backbone=BACKBONE,
        heads=dict(depth=dict(type='DepthHead')),
    ),
    train_dataloader=dict(
        dataset=dict(
            type='ConcatDataset',
            datasets=[
                dict(
                    type='mmmask3d.RGBDDataset',
                    data_root='/home/someone/frames/kitchen/',
                    ann_file='splits/train.txt',
                    pipeline=[
                        dict(type='mmmask3d.DepthAwareMasking', rgb_ratio=0.8, depth_ratio=0.7)
                    ],
                ),
                dict(type='mmmask3d.RGBDDataset', data_root='office', pipeline=[]),
            ],
        )
    ),
)


class Whole(nn.Module):
    """A pre-training model as far as its keys are concerned."""

    def __init__(self):
        super().__init__()
        self.backbone = Mask3DViT(**{k: v for k, v in BACKBONE.items() if k != 'type'})
        self.decoder = nn.Linear(48, 8)


@pytest.fixture(scope='module')
def whole():
    torch.manual_seed(0)
    model = Whole()
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    return model


@pytest.fixture
def checkpoint(whole):
    return dict(
        state_dict=whole.state_dict(),
        meta=dict(cfg=Config(CONFIG).pretty_text, epoch=3, iter=12, seed=7),
    )


def test_config_text_of_every_kind_is_read_as_mmengine_reads_it():
    cfg = Config(
        dict(
            a=dict(b=[1, -2.5, (3, 4), None, True], c='x"\'y'),
            values={1: 'one', 'with space': 2, 'self': (1,)},
            empty=dict(),
            small=1e-06,
        )
    )
    parsed = record.parse_config_text(cfg.pretty_text)
    assert parsed == Config.fromstring(cfg.pretty_text, '.py').to_dict()
    assert parsed['a']['b'] == [1, -2.5, (3, 4), None, True]
    text = Config(dict(a=float('inf'))).pretty_text
    assert record.parse_config_text(text) == {'a': float('inf')}


def test_config_text_with_a_negative_infinity():
    assert record.parse_config_text('a = -inf\nb = [-1, -2.5]') == {
        'a': float('-inf'),
        'b': [-1, -2.5],
    }


@pytest.mark.parametrize(
    'text',
    [
        'a = __import__("os").mkdir("{}")',
        'import os\nos.mkdir("{}")',
        'a = dict(b=[open("{}", "w")])',
        'a = (lambda: 1)()',
    ],
)
def test_config_text_is_never_run(text, tmp_path):
    target = tmp_path / 'made'
    with pytest.raises(ValueError, match=r'--config|malformed'):
        record.parse_config_text(text.format(target))
    assert not target.exists()


def test_only_the_encoder_is_taken(checkpoint, whole):
    state = export.encoder_state_dict(checkpoint)
    expected = whole.backbone.state_dict()
    assert set(state) == set(expected)
    assert all(torch.equal(state[k], expected[k]) for k in expected)


def test_foreign_checkpoint_error_lists_what_was_found():
    foreign = {'backbone.conv1.weight': torch.zeros(2), 'head.fc.weight': torch.zeros(2)}
    with pytest.raises(ValueError, match=r'file\.pth.*backbone \(1 tensors\), head \(1 .*conv1'):
        export.encoder_state_dict(dict(state_dict=foreign), 'file.pth')


def test_grid_4x9_is_never_read_as_6x6(checkpoint):
    state = export.encoder_state_dict(checkpoint)
    assert export.source_grid(state, checkpoint, BACKBONE, 'f') == (4, 9)
    # Without a record, the config tells.
    plain = dict(state)
    assert export.source_grid(plain, dict(state_dict=plain), BACKBONE, 'f') == (4, 9)
    # A config of another run contradicts the embedding.
    with pytest.raises(ValueError, match=r'36 patches.*8x8'):
        export.source_grid(plain, dict(state_dict=plain), {**BACKBONE, 'img_size': 64}, 'f')


def test_resampling_moves_positions_only_and_keeps_a_ramp_a_ramp(checkpoint):
    state = export.encoder_state_dict(checkpoint)
    rows, columns = torch.meshgrid(
        (torch.arange(4) + 0.5) / 4, (torch.arange(9) + 0.5) / 9, indexing='ij'
    )
    ramp = torch.zeros(1, 37, 48)
    ramp[0, 0] = 5.0
    ramp[0, 1:, 0], ramp[0, 1:, 1] = rows.flatten(), columns.flatten()
    state['pos_embed'] = ramp
    out = export.resample_encoder(state, (4, 9), (8, 8))
    assert out['pos_embed'].shape == (1, 65, 48)
    assert torch.equal(out['pos_embed'][:, 0], ramp[:, 0])
    grid = out['pos_embed'][0, 1:].view(8, 8, 48)
    # Rows must follow rows: bicubic resampling of a linear ramp is linear away from the border.
    expected = (torch.arange(8) + 0.5) / 8
    torch.testing.assert_close(grid[2:6, 3, 0], expected[2:6], atol=0.03, rtol=0)
    torch.testing.assert_close(grid[3, 2:6, 1], expected[2:6], atol=0.03, rtol=0)
    assert torch.all((grid[:, :, 0] - grid[:, :1, 0]).abs() < 1e-6)
    assert all(torch.equal(out[k], state[k]) for k in state if k != 'pos_embed')


def test_hash_covers_names_shapes_dtypes_and_values():
    base = {'a': torch.arange(4.0), 'b': torch.zeros(2, dtype=torch.bfloat16)}
    digest = export.tensors_sha256(base)
    assert digest == export.tensors_sha256(dict(reversed(base.items())))
    variants = [
        {**base, 'a': torch.arange(4.0) + 1e-7},
        {**base, 'a': torch.arange(4.0).view(2, 2)},
        {**base, 'b': torch.zeros(2, dtype=torch.float16)},
        {'c': base['a'], 'b': base['b']},
    ]
    assert digest not in {export.tensors_sha256(v) for v in variants}
    text = b'a torch.float32 [4]\n' + struct.pack('<4f', 0, 1, 2, 3)
    assert export.tensors_sha256({'a': base['a']}) == hashlib.sha256(text).hexdigest()


def test_metadata_says_method_data_and_origin_without_private_folders(checkpoint, tmp_path):
    source = tmp_path / 'epoch_3.pth'
    torch.save(checkpoint, source)
    state = export.encoder_state_dict(checkpoint)
    meta = export.encoder_metadata(checkpoint, None, BACKBONE, state, (4, 9), source)
    assert meta['method'] == {
        'type': 'mmmask3d.MaskedRGBD',
        'targets': ['depth'],
        'masking': {
            'type': 'mmmask3d.DepthAwareMasking',
            'rgb_ratio': 0.8,
            'depth_ratio': 0.7,
            'patch_size': 8,  # the encoder's
        },
    }
    assert [d['data_root'] for d in meta['data']] == ['kitchen', 'office']
    assert 'someone' not in json.dumps(meta)
    assert (meta['epoch'], meta['iter'], meta['seed']) == (3, 12, 7)
    assert meta['patch_grid'] == [4, 9]
    assert meta['patch_size'] == [8, 8]
    assert meta['source_sha256'] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert meta['tensors_sha256'] == export.tensors_sha256(state)
    assert meta['exported_by'].startswith('mmmask3d ')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_written_file_fills_both_models(suffix, checkpoint, whole, tmp_path):
    source = tmp_path / 'epoch_3.pth'
    torch.save(checkpoint, source)
    state = export.encoder_state_dict(checkpoint)
    meta = export.encoder_metadata(checkpoint, None, BACKBONE, state, (4, 9), source)
    out = tmp_path / f'encoder{suffix}'
    export.write_encoder(out, state, meta)
    read = load_checkpoint_file(out)
    assert record.read_meta(read) == meta
    again = export.encoder_state_dict(read)
    assert export.source_grid(again, read, BACKBONE, 'f') == (4, 9)

    x = torch.rand(1, 3, 32, 72)
    plain = VisionTransformer(
        arch=ARCH,
        img_size=(32, 72),
        patch_size=8,
        out_type='featmap',
        norm_cfg=dict(type='LN', eps=1e-6),
    )
    plain.load_state_dict(again, strict=True)
    plain.eval()
    expected = whole.backbone.eval()(x)[0]
    torch.testing.assert_close(plain(x)[0], expected)

    # Through the way a user takes, into a model of another grid: rows stay rows.
    other = Mask3DViT(
        arch=ARCH, img_size=(48, 48), patch_size=8,
        init_cfg=dict(type='Pretrained', checkpoint=str(out)),
    )  # fmt: skip
    other.init_weights()
    resampled = export.resample_encoder(state, (4, 9), (6, 6))
    torch.testing.assert_close(other.pos_embed.data, resampled['pos_embed'])


def test_a_grid_that_could_be_square_is_extracted_by_the_command(
    checkpoint, whole, tmp_path, load_tool
):
    """36 patches are 4x9 here: neither model may refuse them, or take them for 6x6."""
    source, out = tmp_path / 'epoch_3.pth', tmp_path / 'encoder.pth'
    torch.save(checkpoint, source)
    assert load_tool('model_converters/extract_backbone.py').main([str(source), str(out)]) == 0
    written = export.encoder_state_dict(load_checkpoint_file(out))
    assert torch.equal(written['pos_embed'], whole.backbone.pos_embed)


def test_square_export_resizes_inside_plain_vit(checkpoint):
    state = export.resample_encoder(export.encoder_state_dict(checkpoint), (4, 9), (6, 6))
    plain = export.build_plain_vit(BACKBONE, (6, 6))
    export.load_strictly(plain, state, 'plain')
    bigger = VisionTransformer(arch=ARCH, img_size=64, patch_size=8, out_type='featmap')
    assert bigger.load_state_dict(dict(state), strict=True).missing_keys == []


def test_loading_reports_keys_that_do_not_fit(checkpoint):
    state = export.encoder_state_dict(checkpoint)
    plain = export.build_plain_vit(BACKBONE, (4, 9))
    with pytest.raises(ValueError, match=r'layers\.1\.ln1\.weight'):
        export.load_strictly(
            plain, {k: v for k, v in state.items() if k != 'layers.1.ln1.weight'}, 'plain'
        )
    with pytest.raises(ValueError, match='extra_key'):
        export.load_strictly(plain, {**state, 'extra_key': torch.zeros(1)}, 'plain')


def test_failed_write_leaves_the_old_file_and_no_rubbish(checkpoint, tmp_path, monkeypatch):
    state = export.encoder_state_dict(checkpoint)
    out = tmp_path / 'encoder.pth'
    out.write_bytes(b'old')

    def full_disk(*args):
        raise OSError('No space left on device')

    monkeypatch.setattr('os.replace', full_disk)
    with pytest.raises(OSError, match='No space'):
        export.write_encoder(out, state, {'patch_grid': [4, 9]})
    assert [p.name for p in tmp_path.iterdir()] == ['encoder.pth']
    assert out.read_bytes() == b'old'


def test_unknown_suffix_is_refused(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r'\.pth or \.safetensors'):
        export.write_encoder(tmp_path / 'encoder.bin', {}, {'patch_grid': [1, 1]})
