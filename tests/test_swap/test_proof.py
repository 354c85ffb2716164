"""The proof of a swap fails where the swapped model would: shapes, losses, gradients."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmseg.models import EncoderDecoder

from mmmask3d.swap.backbone import SwapError
from mmmask3d.swap.proof import build_alone, prove_swap
from mmmask3d.swap.random_batch import random_batch

OLD = dict(type='mmseg.ResNet', depth=18)
HEAD = dict(
    type='FCNHead', in_channels=512, in_index=3, channels=8, num_convs=1, num_classes=3,
    norm_cfg=dict(type='SyncBN'),
)  # fmt: skip
SIZE = (40, 70)


class Detached(EncoderDecoder):
    """A model whose losses do not depend on its backbone."""

    def extract_feat(self, inputs):
        return [x.detach() for x in super().extract_feat(inputs)]


def config(head=None, backbone=None, **model):
    return Config(
        dict(
            model=dict(
                type='EncoderDecoder',
                data_preprocessor=dict(type='SegDataPreProcessor', size=(512, 512)),
                backbone=dict(
                    type='mmmask3d.Mask3DPyramid',
                    arch=dict(embed_dims=48, num_layers=2, num_heads=3, feedforward_channels=96),
                    out_channels=(64, 128, 256, 512),
                    **(backbone or {}),
                ),
                decode_head={**HEAD, **(head or {})},
                test_cfg=dict(mode='whole'),
                **model,
            ),
            default_scope='mmseg',
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-4)),
            train_cfg=dict(max_iters=1),
        )
    )


def test_what_is_seen():
    proof = prove_swap(config(), OLD, size=SIZE)
    # 40x70 are padded to a multiple of 32, and not to the 512x512 of the config
    assert proof.shapes == {
        (40, 70): [(64, 10, 18), (128, 5, 9), (256, 3, 5), (512, 2, 3)],
        (64, 96): [(64, 16, 24), (128, 8, 12), (256, 4, 6), (512, 2, 3)],
    }
    assert set(proof.losses) == {'loss', 'decode.loss_ce', 'decode.acc_seg'}
    assert proof.grad_norm > 0
    assert {n.split('.')[3] for n in proof.unused} == {'0', '1', '2'}
    assert 'decode_head.conv_seg.weight' in proof.parameters
    again = prove_swap(config(), OLD, size=SIZE)
    assert again.losses == proof.losses


def test_frozen_or_untrained():
    frozen = prove_swap(config(backbone=dict(frozen_stages=2)), OLD, size=SIZE)
    assert frozen.grad_norm is None
    assert not any('.vit.' in name for name in frozen.unused)
    cfg = config()
    cfg.train_cfg = None
    assert prove_swap(cfg, OLD, size=SIZE).losses == {}


def test_maps_of_another_shape():
    old = dict(OLD, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4))
    with pytest.raises(SwapError, match=r'an image of 40x70 the maps are .*those of mmseg\.ResNet'):
        prove_swap(config(), old, size=SIZE)


def test_losses_that_are_not_finite():
    head = dict(loss_decode=dict(type='CrossEntropyLoss', loss_weight=float('nan')))
    with pytest.raises(SwapError, match=r'not finite.*nan'):
        prove_swap(config(head), OLD, size=SIZE)


def test_losses_that_do_not_reach_the_backbone():
    cfg = config()
    MODELS.register_module(name='Detached', module=Detached, force=True)
    try:
        cfg.model.type = 'mmengine.Detached'
        with pytest.raises(SwapError, match=r'gradient in the first layer .* is 0\.0'):
            prove_swap(cfg, OLD, size=SIZE)
    finally:
        MODELS.module_dict.pop('Detached')


def test_no_swapped_backbone():
    cfg = config()
    cfg.model.backbone = Config(dict(b=OLD)).b
    with pytest.raises(SwapError, match='shows no Mask3DPyramid among its modules'):
        prove_swap(cfg, OLD, size=SIZE)


def test_nothing_else_is_loaded(tmp_path):
    """Weights elsewhere in the model would be downloaded; the encoder's are loaded."""
    weights = dict(type='Pretrained', checkpoint='https://nowhere.invalid/x.pth')
    cfg = config(dict(init_cfg=weights), init_cfg=weights)
    encoder = build_alone(config(), 'model.backbone').backbone.vit
    torch.save(encoder.state_dict(), tmp_path / 'e.pth')
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'e.pth'))
    torch.manual_seed(3)
    built = build_alone(cfg, 'model.backbone').backbone.vit
    for key, value in encoder.state_dict().items():
        assert torch.equal(built.state_dict()[key], value)
    assert cfg.model.init_cfg == weights  # the config is left alone


def test_unknown_kind_of_model():
    with pytest.raises(SwapError, match='Linear is no segmentor, detector, tracker or classifier'):
        random_batch(torch.nn.Linear(1, 1), config())
