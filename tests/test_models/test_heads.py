import math

import numpy as np
import pytest
import torch

from mmmask3d.models import DepthHead, NormalHead, RGBHead
from mmmask3d.models.patches import patch_mask_to_pixels, patchify, unpatchify
from mmmask3d.models.surface_normals import plane_normals

GRID = (2, 3)


def make(kind, **kwargs):
    torch.manual_seed(0)
    head = kind(8, patch_size=4, **kwargs)
    head.init_weights()
    return head


def batch(seed=0):
    g = torch.Generator().manual_seed(seed)
    valid = torch.rand(2, 1, 8, 12, generator=g) > 0.2
    depth = torch.where(valid, torch.rand(2, 1, 8, 12, generator=g) + 1, 0)
    return dict(
        img=torch.rand(2, 3, 8, 12, generator=g),
        depth=depth,
        valid=valid,
        target=depth * 2,
        interpolation=torch.rand(2, 1, 8, 12, generator=g),
        rgb_mask=torch.tensor([[0, 1, 1, 0, 1, 0], [1, 1, 1, 0, 0, 0]]).bool(),
        depth_mask=torch.tensor([[1, 1, 0, 0, 0, 1], [0, 1, 0, 1, 1, 0]]).bool(),
    )


@pytest.mark.parametrize(('kind', 'channels'), [(DepthHead, 1), (RGBHead, 3), (NormalHead, 3)])
def test_a_token_predicts_the_pixels_of_its_own_patch(kind, channels):
    head = make(kind)
    tokens = torch.rand(2, 6, 8)
    pred = head(tokens, GRID, batch())
    assert pred.shape == (2, channels, 8, 12)
    assert pred.dtype == torch.float32
    expected = tokens[1, 5] @ head.proj.weight.T + head.proj.bias  # second row, third column
    torch.testing.assert_close(pred[1, :, 4:, 8:].reshape(-1), expected)


def test_depth_loss_is_over_valid_pixels_of_removed_patches():
    b = batch()
    pred = torch.rand(2, 1, 8, 12)
    removed = patch_mask_to_pixels(b['depth_mask'], 4, GRID)
    for loss_on, where in (('masked', removed & b['valid']), ('all', b['valid'])):
        expected = np.mean(np.square((pred - b['target'])[where].double().numpy()))
        found = make(DepthHead, loss_on=loss_on, loss_weight=3.0).loss(pred, GRID, b)
        assert found[''].item() == pytest.approx(3 * expected)


def test_several_depth_losses_are_reported_by_name():
    b, pred = batch(), torch.rand(2, 1, 8, 12)
    names = ['DepthL1Loss', 'DepthBerHuLoss', 'DepthGradientLoss']
    configs = [dict(type=n, loss_weight=0.5) for n in names]
    found = make(DepthHead, loss=configs, loss_weight=2.0).loss(pred, GRID, b)
    assert list(found) == ['l1', 'berhu', 'gradient']
    for (name, value), config in zip(found.items(), configs, strict=True):
        single = make(DepthHead, loss={**config, 'loss_weight': 1.0}).loss(pred, GRID, b)
        torch.testing.assert_close(value, single[''], msg=name)


def test_a_loss_may_be_given_by_its_name():
    b, pred = batch(), torch.rand(2, 1, 8, 12)
    for by_name, by_config in (
        ('DepthL1Loss', dict(type='DepthL1Loss')),
        (['DepthL2Loss', 'DepthGradientLoss'],
         [dict(type='DepthL2Loss'), dict(type='DepthGradientLoss')]),
    ):  # fmt: skip
        found = make(DepthHead, loss=by_name).loss(pred, GRID, b)
        assert found == make(DepthHead, loss=by_config).loss(pred, GRID, b)


@pytest.mark.parametrize('loss_on', ['masked', 'all'])
@pytest.mark.parametrize('kind', [DepthHead, RGBHead])
def test_a_share_of_the_patches_is_predicted_and_looked_at_alone(kind, loss_on):
    head, b = make(kind, loss_on=loss_on), batch()
    b['rgb_keep'] = b['depth_keep'] = torch.zeros(2, 3, dtype=torch.int64)
    torch.manual_seed(3)
    ids = head.sample(b, 0.5)
    assert ids.shape == (2, 3 if loss_on == 'all' else 2)  # of 6 and of 3, rounded up
    drawn = torch.zeros(2, 6).scatter_add(1, ids, torch.ones(ids.shape))
    assert drawn.max() == 1
    if loss_on == 'masked':
        assert not drawn[~b[head.mask_name]].any()
    tokens = torch.rand(2, 6, 8)
    pred = head(torch.stack([t[i] for t, i in zip(tokens, ids, strict=True)]), GRID, b, ids)
    whole = head(tokens, GRID, b)
    where = patch_mask_to_pixels(drawn.bool(), 4, GRID).expand_as(whole)
    torch.testing.assert_close(pred[where], whole[where])
    # the loss is that of a head whose loss looks at the drawn patches for another reason
    (found,) = head.loss(pred, GRID, b, ids).values()
    (expected,) = make(kind).loss(whole, GRID, {**b, head.mask_name: drawn.bool()}).values()
    assert expected > 0
    torch.testing.assert_close(found, expected)


def test_residual_head_adds_to_the_interpolation_and_starts_with_it():
    head, b = make(DepthHead, residual=True), batch()
    tokens = torch.rand(2, 6, 8)
    assert torch.equal(head(tokens, GRID, b), b['interpolation'])
    with torch.no_grad():
        head.proj.bias.fill_(0.25)
    torch.testing.assert_close(head(tokens, GRID, b), b['interpolation'] + 0.25)


@pytest.mark.parametrize('loss_on', ['masked', 'all'])
@pytest.mark.parametrize('norm_pix', [True, False])
def test_rgb_loss_is_that_of_mae(norm_pix, loss_on):
    b = batch()
    pred = torch.rand(2, 3, 8, 12)
    errors = []
    for i in range(2):
        for n in range(6):
            if loss_on == 'masked' and not b['rgb_mask'][i, n]:
                continue
            y, x = 4 * (n // 3), 4 * (n % 3)
            target = b['img'][i, :, y : y + 4, x : x + 4].double().numpy()
            if norm_pix:  # MAE: the unbiased variance of all 48 numbers
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            errors.append(np.mean((pred[i, :, y : y + 4, x : x + 4].numpy() - target) ** 2))
    head = make(RGBHead, norm_pix=norm_pix, loss_on=loss_on, loss_weight=0.5)
    assert head.loss(pred, GRID, b)[''].item() == pytest.approx(0.5 * np.mean(errors), rel=1e-5)


def test_rgb_loss_with_nothing_removed_is_zero_with_zero_gradients():
    b, pred = batch(), torch.rand(2, 3, 8, 12, requires_grad=True)
    b['rgb_mask'] = torch.zeros_like(b['rgb_mask'])
    loss = make(RGBHead).loss(pred, GRID, b)['']
    loss.backward()
    assert loss == 0
    assert not pred.grad.any()


def test_perfect_rgb_prediction_becomes_the_image_again():
    b, head = batch(), make(RGBHead)
    mean, std = head.statistics(b['img'])
    perfect = unpatchify((patchify(b['img'], 4) - mean) / std, 4, GRID)
    assert head.loss(perfect, GRID, b)[''].item() < 1e-12
    torch.testing.assert_close(head.to_image(perfect, GRID, b), b['img'])
    plain = make(RGBHead, norm_pix=False)
    assert plain.to_image(b['img'], GRID, b) is b['img']


# ---------------------------------------------------------------- normals


def plane(normal, size=(12, 16), fov=60.0, distance=2.0):
    """Depth of the plane ``normal . x = normal_z * distance`` seen by a pinhole camera."""
    h, w = size
    focal = 0.5 * w / math.tan(math.radians(fov) / 2)
    u = (np.arange(w) - (w - 1) / 2) / focal
    v = (np.arange(h)[:, None] - (h - 1) / 2) / focal
    n = np.asarray(normal, dtype=np.float64)
    depth = n[2] * distance / (n[0] * u + n[1] * v + n[2])
    return torch.tensor(depth, dtype=torch.float32)[None, None], n / np.linalg.norm(n)


def test_normal_loss_is_one_minus_the_cosine_on_removed_patches():
    b = batch()
    b['valid'] = torch.ones_like(b['valid'])
    b['depth'] = plane((0.3, -0.2, -1), size=(8, 12), fov=57.0)[0].expand(2, -1, -1, -1)
    normals, ok = plane_normals(b['depth'], b['valid'], 57.0, window=9)
    head = make(NormalHead)
    where = (patch_mask_to_pixels(b['depth_mask'], 4, GRID) & ok)[:, 0]
    pred = torch.randn(2, 3, 8, 12)
    p, n = (
        pred.double().movedim(1, -1)[where].numpy(),
        normals.double().movedim(1, -1)[where].numpy(),
    )
    expected = np.mean(1 - (p * n).sum(1) / np.linalg.norm(p, axis=1))
    assert head.loss(pred, GRID, b)[''].item() == pytest.approx(expected, rel=1e-5)
    assert head.loss(normals * 7, GRID, b)[''].item() == pytest.approx(0, abs=1e-6)
    assert head.loss(-normals, GRID, b)[''].item() == pytest.approx(2, abs=1e-6)


def test_normal_loss_of_a_zero_prediction_has_a_finite_gradient():
    pred = torch.zeros(2, 3, 8, 12, requires_grad=True)
    make(NormalHead).loss(pred, GRID, batch())[''].backward()
    assert torch.isfinite(pred.grad).all()


def test_unknown_loss_region_is_refused():
    with pytest.raises(ValueError, match=r"'kept'.*'masked' or 'all'"):
        make(RGBHead, loss_on='kept')
