"""Plans the swap of a config's backbone for the encoder: what changes, to what, and why.

What a transformer needs to train well, apart from the backbone itself, is nowhere checked by the
libraries: a config with a ResNet's normalisation, optimiser or schedule runs, and learns badly.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config

from mmmask3d.models.encoder_record import is_timm
from mmmask3d.models.timm_vit import has_rotary_code
from mmmask3d.swap.backbone import (
    Levels,
    SwapError,
    bare,
    find_backbone,
    measure_levels,
    nested_backbones,
)
from mmmask3d.swap.encoder_file import check_arch, encoder_settings
from mmmask3d.swap.proof import Proof
from mmmask3d.weights.export import without_memory

#: ImageNet's statistics of RGB in 0..255, with which the encoder is pre-trained.
MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]
#: Above this number of patches, windows are set: attention costs the square of it.
_MAX_GLOBAL_PATCHES = 2048
_WINDOW = 14
# Patches in place of those that fit no ResNet's strides, such as DINOv2's of 14 pixels.
_PATCH = 16
_WARMUP = 1500
#: The rates that docs/transfer.md calls usual end here.
_USUAL_LR = 5e-4


@dataclass(frozen=True)
class SwapOptions:
    """What the user may choose.

    Attributes:
        arch: architecture of the encoder; None takes that of the checkpoint, or ``'base'``.
        checkpoint: weights of the encoder, or ``timm:NAME``; None starts at random.
        path: location of the old backbone in the config.
        lr: learning rate; None keeps that of an AdamW, and is 1e-4 in place of another optimiser.
        layer_decay: factor from one layer's learning rate to that of the one below.
        window_size: see ``Mask3DViT``; None sets 14 for large images only.
        drop_path_rate: see ``Mask3DViT``.
        backbone_only: change the backbone and nothing else.
    """

    arch: str | dict | None = None
    checkpoint: str | None = None
    path: str = 'model.backbone'
    lr: float | None = None
    layer_decay: float | None = None
    window_size: int | None = None
    drop_path_rate: float | None = None
    backbone_only: bool = False


@dataclass(frozen=True)
class Change:
    """One entry of the config that is replaced.

    Attributes:
        key: dotted path.
        old: what stood there, ``None`` too where nothing did.
        new: what stands there now.
        reason: one sentence.
        replaces: a dict that is not to be merged with the old one.
    """

    key: str
    old: Any
    new: Any
    reason: str
    replaces: bool = False


@dataclass
class Swap:
    """The planned swap.

    Attributes:
        levels: the maps of the old backbone, and so of the new one.
        old_backbone: its settings.
        changes: what the new config holds.
        notes: what the user should know and the config does not change.
    """

    levels: Levels
    old_backbone: dict
    changes: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def plan_swap(cfg: Config, options: SwapOptions) -> Swap:
    """Plan the swap of the backbone at ``options.path``.

    Raises:
        SwapError: there is no backbone there, it gives no maps of whole-numbered strides, or the
            encoder cannot give such maps.
    """
    old = find_backbone(cfg, options.path)
    swap = Swap(measure_levels(old, cfg.get('default_scope')), old)
    settings = _encoder_settings(options, swap)
    encoder = without_memory(settings)
    _plan_backbone(cfg, options, settings, encoder, swap)
    others = [
        *_pretrained_changes(cfg, options.path),
        *_normalisation_changes(cfg, options.path, settings, encoder),
        *_optimiser_changes(cfg, options, encoder, swap.notes),
    ]
    if options.backbone_only:
        swap.notes += [
            f'left as it is: {change.key} = {brief(change.old)}. {change.reason} Wanted: '
            f'{brief(change.new) if change.new is not None else None}.'
            for change in others
        ]
    else:
        swap.changes += others
    _remaining_notes(cfg, options, swap)
    return swap


def refine_swap(swap: Swap, cfg: Config, proof: Proof | None, backbone_only: bool = False) -> None:
    """Add to the plan what only the built model tells.

    Settings by name that fit no parameter, at which the optimiser's constructor stops, are
    dropped. And levels that no neck or head uses are said to be there: a ResNet's stages feed each
    other, so all are trained; here each is a branch of its own, and distributed training stops at
    parameters without gradient.

    Args:
        swap: changed in place.
        cfg: the user's config.
        proof: of the swapped model; None where it was not run, and the worst is assumed.
        backbone_only: as in :class:`SwapOptions`.
    """
    if proof is not None:
        _drop_unfit_keys(swap, proof.parameters)
        if not proof.unused:
            return
    elif not cfg.get('optim_wrapper'):
        return
    wrapper = cfg.get('model_wrapper_cfg')
    key = 'find_unused_parameters'
    if wrapper is not None:
        if str(wrapper.get('type')).split('.')[-1] != 'MMDistributedDataParallel':
            return
        cfg, key = wrapper, f'model_wrapper_cfg.{key}'
    old = cfg.get('find_unused_parameters')
    if old:
        return
    if proof is None:
        what = 'Parts of the backbone may be unused by necks and heads'
    else:
        levels = sorted(
            {name.partition('.pyramid.levels.')[2].split('.')[0] for name in proof.unused} - {''}
        )
        several = 's' if len(levels) > 1 else ''
        named = f'level{several} {", ".join(levels)} of the pyramid' if levels else proof.unused[0]
        what = f'No neck or head uses {named}'
    reason = f'{what}; on several GPUs training would stop at parameters without gradient.'
    if backbone_only:
        swap.notes.append(f'left as it is: {key} = {old}. {reason} Wanted: True.')
    else:
        swap.changes.append(Change(key, old, True, reason))


def _drop_unfit_keys(swap: Swap, parameters: Sequence[str]) -> None:
    for change in (change for change in swap.changes if change.key == 'optim_wrapper'):
        paramwise = change.new['paramwise_cfg']
        custom = paramwise.get('custom_keys', {})
        unfit = [key for key in custom if not any(key in name for name in parameters)]
        for key in unfit:
            del custom[key]
        if unfit:
            if not custom:
                del paramwise['custom_keys']
            swap.notes.append(
                f'dropped from custom_keys, as they fit no parameter: {", ".join(unfit)}.'
            )


def brief(value: Any, most: int = 160) -> str:
    """A value on one line, cut where it is long."""
    text = ' '.join(repr(value).split()) if value is not None else 'not set'
    return text if len(text) <= most else text[: most - 4] + ' ...'


# ------------------------------------------------------------------------------ the backbone


def _encoder_settings(options: SwapOptions, swap: Swap) -> dict[str, Any]:
    """Config of the encoder, with patches from which the strides of a ResNet can be made."""
    if options.checkpoint:
        encoder = encoder_settings(options.checkpoint, options.arch)
    else:
        check_arch(options.arch)
        encoder = dict(arch=options.arch or 'base', patch_size=16, img_size=224)
        swap.notes.append(
            'no checkpoint is given, so the encoder starts at random: give '
            'its weights with --encoder, which is the point of the swap; if a random start is '
            'what you want, set layer_decay_rate=1, as its early layers have to learn too.'
        )
    own = encoder['patch_size']
    if own & (own - 1):  # strides are powers of two, and maps are doubled or halved
        encoder['patch_size'] = _PATCH
        encoder['img_size'] = tuple(side // own * _PATCH for side in encoder['img_size'])
        swap.notes.append(
            f'{options.checkpoint}: its patches of {own} pixels, from which no map of these '
            f'strides can be made, become {_PATCH}: the patch embedding is resampled when it is '
            f'loaded (FlexiViT), on the same grid of patches.'
        )
    return encoder


def _plan_backbone(
    cfg: Config, options: SwapOptions, settings: dict[str, Any], encoder: Any, swap: Swap
) -> None:
    """Add the backbone itself."""
    levels = swap.levels
    maps = dict(
        out_strides=levels.strides, out_channels=levels.channels, out_indices=levels.indices
    )
    drop_path = options.drop_path_rate
    if drop_path is None:  # that of ViTDet's configs in detectron2 (projects/ViTDet)
        drop_path = 0.1 if encoder.embed_dims < 1024 else 0.4
    new: dict[str, Any] = dict(drop_path_rate=drop_path)
    window, why = options.window_size, 'as you asked'
    if window is None:
        patches = _patches(cfg, settings['patch_size'])
        window = _WINDOW if patches is None or patches > _MAX_GLOBAL_PATCHES else 0
        why = (
            'as the pipelines do not tell how large images are'
            if patches is None
            else f'as images have up to {patches} patches'
        )
    timm = is_timm(settings)
    if window and timm and has_rotary_code(settings['model']):
        rotary = f'{settings["model"]} has rotary positions, with which there are no windows'
        if options.window_size:
            raise SwapError(f'{rotary}: leave --window-size out.')
        swap.notes.append(f'{rotary}, and {why}: attention is global, which takes memory and time.')
        window = 0
    if window:
        new['window_size'] = window
        if encoder.num_layers <= 4:
            # ViTDet's choice, the last layer of each quarter, is every layer of these.
            new['global_attn_indexes'] = (-1,)
    if swap.old_backbone.get('with_cp'):
        new['with_cp'] = True
    if timm:
        new = dict(type='mmmask3d.Mask3DPyramid', encoder={**settings, **new}, **maps)
    else:
        new = dict(type='mmmask3d.Mask3DPyramid', **settings, **maps, **new)
        if options.checkpoint:
            new['init_cfg'] = dict(type='Pretrained', checkpoint=options.checkpoint)
    reason = f'The encoder with the maps of {swap.old_backbone["type"]}: {levels}.'
    if window:
        reason += f' Attention in windows of {window}x{window} patches (ViTDet), {why}.'
    swap.changes.append(Change(options.path, bare(swap.old_backbone), new, reason, replaces=True))
    frozen = swap.old_backbone.get('frozen_stages', -1)
    if isinstance(frozen, int) and frozen >= 0:
        swap.notes.append(
            f'frozen_stages={frozen} of the old backbone is not carried over: it counts the stages '
            'of a ResNet, whose batch norms suffer from small batches. Layer decay keeps the '
            'early layers near their pre-training.'
        )


def _patches(cfg: Config, patch_size: int) -> int | None:
    """Patches of the largest image a training sees; None where the pipelines do not tell."""
    loader = cfg.get('train_dataloader') or cfg.get('test_dataloader') or {}
    pixels = _pixels_after(loader.get('dataset'))
    return int(pixels) // patch_size**2 if pixels else None


def _pixels_after(value: Any, pixels: float = 0) -> float:
    """Pixels of the largest image behind a data set, pipeline or transform.

    Args:
        value: its settings.
        pixels: of the images that reach it; 0 where that is not known.
    """
    if isinstance(value, Mapping):
        pixels = _pixels_of(value, pixels)
        inner = [
            [_pixels_after(one, pixels) for one in entry]  # one of these, or all side by side
            if key == 'datasets' or (key == 'transforms' and 'Choice' in str(value.get('type')))
            else [_pixels_after(entry, pixels)]
            for key, entry in value.items()
            if isinstance(entry, Mapping | list | tuple)
        ]
        return max((found for several in inner for found in several), default=pixels)
    if isinstance(value, list | tuple):
        if value and all(isinstance(entry, list | tuple) for entry in value):  # branches
            return max(_pixels_after(entry, pixels) for entry in value)
        for entry in value:
            pixels = _pixels_after(entry, pixels)
    return pixels


def _pixels_of(step: Mapping, pixels: float) -> float:
    """Pixels after one transform that gets images of ``pixels``."""
    kind = str(step.get('type', ''))
    crop = _areas(step.get('crop_size')) if 'Crop' in kind else []
    if crop:
        return crop[0]
    sizes = [area for key in ('scale', 'scales', 'img_scale') for area in _areas(step.get(key))]
    factor = max(step.get('ratio_range') or [1]) if 'Resize' in kind else 1
    return max(sizes) * factor**2 if sizes else pixels


def _areas(value: Any) -> list[float]:
    """Pixels of a size (one number, or two), or of each in a list; none of a share of the image."""
    if isinstance(value, int | float):
        return [value**2] if value > 1 else []
    if not isinstance(value, list | tuple):
        return []
    if len(value) == 2 and all(isinstance(side, int | float) for side in value):
        return [value[0] * value[1]] if min(value) > 1 else []
    return [area for one in value for area in _areas(one)]


# -------------------------------------------------------------------- around the backbone


def _ancestors(cfg: Config, path: str) -> list[tuple[str, Mapping]]:
    """The models around a backbone, from the outermost: ``model``, ``model.detector``."""
    found, holder, keys = [], cfg, path.split('.')
    for i, key in enumerate(keys[:-1]):
        holder = holder[key]
        found.append(('.'.join(keys[: i + 1]), holder))
    return found


def _pretrained_changes(cfg: Config, path: str) -> list[Change]:
    return [
        Change(
            f'{where}.pretrained',
            holder['pretrained'],
            None,
            'Weights of the old backbone; the model hands them to whatever backbone it finds.',
        )
        for where, holder in _ancestors(cfg, path)
        if holder.get('pretrained') is not None
    ]


def _normalisation_changes(cfg: Config, path: str, settings: Mapping, encoder: Any) -> list[Change]:
    """Ours, in every preprocessor that an image passes on its way to the backbone."""
    places = _reidentification(cfg, path)
    for where, holder in [] if places else _ancestors(cfg, path):
        places += _preprocessors(holder.get('data_preprocessor'), f'{where}.data_preprocessor')
    if not places:  # mmpretrain's configs have it next to the model
        places = _preprocessors(cfg.get('data_preprocessor'), 'data_preprocessor')
    wanted, whose = {'mean': MEAN, 'std': STD}, 'ImageNet'
    if encoder.normalisation is not None:
        wanted = {key: list(value) for key, value in encoder.normalisation.items()}
        whose = settings['model']
    changes = []
    for where, old in places:
        flag = 'to_rgb' if _takes_to_rgb(old) else 'bgr_to_rgb'
        new = {**wanted, flag: True}
        if old.get('rgb_to_bgr'):
            new['rgb_to_bgr'] = False
        before = {key: old[key] for key in new if key in old}
        if _plain(before) != new:
            caffe = before.get('std') and max(before['std']) == 1
            changes.append(
                Change(
                    where,
                    before,
                    new,
                    f'The colours of the pre-training: RGB with the statistics of {whose}'
                    + (', not BGR with a deviation of 1 (caffe).' if caffe else '.'),
                )
            )
    return changes


def _preprocessors(value: Any, where: str) -> list[tuple[str, Mapping]]:
    """The preprocessor, or those it wraps (one for the branches of semi-supervised training)."""
    if not isinstance(value, Mapping):
        return []
    inner = value.get('data_preprocessor')
    if isinstance(inner, Mapping):
        return _preprocessors(inner, f'{where}.data_preprocessor')
    return [(where, value)]


def _reidentification(cfg: Config, path: str) -> list[tuple[str, Mapping]]:
    """Where a tracker normalises what it hands to ``model.reid`` in its own way."""
    tracker = cfg.model.get('tracker') if path.startswith('model.reid.') else None
    norm = (((tracker or {}).get('reid')) or {}).get('img_norm_cfg')
    return [('model.tracker.reid.img_norm_cfg', norm)] if norm else []


def _takes_to_rgb(preprocessor: Mapping) -> bool:
    if 'to_rgb' in preprocessor:
        return True
    kind = str(preprocessor.get('type', '')).split('.')[-1]
    return kind in ('ClsDataPreprocessor', 'ReIDDataPreprocessor', 'SelfSupDataPreprocessor')


def _plain(value: Any) -> Any:
    """Without ConfigDicts, tuples as they are, and without the scopes mmengine writes into them."""
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, list | tuple):
        return type(value)(_plain(v) for v in value)
    return copy.deepcopy(value)


# ------------------------------------------------------------------------------ optimiser


def _optimiser_changes(
    cfg: Config, options: SwapOptions, encoder: Any, notes: list[str]
) -> list[Change]:
    old = cfg.get('optim_wrapper')
    if old is None:
        notes.append('the config trains nothing (no optim_wrapper), so no optimiser is set.')
        return []
    if not isinstance(old.get('optimizer'), Mapping):
        notes.append(
            f'optim_wrapper = {brief(_plain(old))} has no single optimiser and is left as it is; a '
            'transformer wants AdamW.'
        )
        return []
    old = _plain(old)
    optimizer = old['optimizer']
    adam = str(optimizer.get('type')).split('.')[-1] in ('Adam', 'AdamW')
    lr = 1e-4 if options.lr is None else options.lr
    new_optimizer = dict(type='AdamW', lr=lr, betas=(0.9, 0.999), weight_decay=0.05)
    if adam:  # chosen for the heads of a model that is trained with it
        kept = {k: v for k, v in optimizer.items() if k not in ('type', 'lr')}
        if options.lr is None:
            lr = optimizer.get('lr', lr)
            if lr > _USUAL_LR:
                notes.append(
                    f'the learning rate {lr} of the config is kept; it is high for a transformer, '
                    f'for which 5e-5 to {_USUAL_LR:g} are usual. Lower it with --lr.'
                )
        new_optimizer = {**new_optimizer, **kept, 'lr': lr}
    decay = options.layer_decay
    if decay is None:  # ViTDet's, as above, for ViT-B and the deeper ViT-L; milder for small ones
        small = 0.7 if encoder.embed_dims >= 768 else 0.75
        decay = 0.8 if encoder.num_layers > 12 else small
    paramwise: dict[str, Any] = dict(layer_decay_rate=decay)
    custom, dropped = _custom_keys(old.get('paramwise_cfg') or {})
    if custom:
        paramwise['custom_keys'] = custom
    new = {k: v for k, v in old.items() if k not in ('optimizer', 'paramwise_cfg', 'constructor')}
    new.setdefault('type', 'OptimWrapper')
    new['constructor'] = 'mmmask3d.LayerDecayOptimWrapperConstructor'
    new['optimizer'] = new_optimizer
    new['paramwise_cfg'] = paramwise
    new['clip_grad'] = old.get('clip_grad') or dict(max_norm=1.0)
    theirs = old.get('constructor')
    if theirs not in (None, 'DefaultOptimWrapperConstructor', new['constructor']):
        notes.append(
            f'the constructor {theirs} of the optimiser gives way to that of layer decay; what it '
            'did in addition is lost.'
        )
    if dropped:
        notes.append(
            f'dropped from optim_wrapper.paramwise_cfg: {", ".join(dropped)}; layer decay sets the '
            "backbone's rates, and vectors never have weight decay there."
        )
    lr_before = optimizer.get('lr')
    reason = (
        f'A transformer does not train with {optimizer.get("type")} at {lr_before}; AdamW, and '
        'lower rates for lower layers, which keeps the pre-training.'
        if not adam
        else 'Theirs, with lower rates for lower layers, which keeps the pre-training.'
    )
    changes = [Change('optim_wrapper', old, new, reason, replaces=True)]
    schedule = cfg.get('param_scheduler')
    changes += _schedule_changes(cfg, _plain(schedule), keep_warmup=adam, notes=notes)
    return changes


def _custom_keys(paramwise: Mapping) -> tuple[dict, list[str]]:
    """What of the old settings by name still applies, and what does not."""
    kept, dropped = {}, []
    for key, value in paramwise.items():
        if key != 'custom_keys':
            dropped.append(f'{key}={value!r}')
            continue
        for name, settings in value.items():
            known = {k: v for k, v in settings.items() if k in ('lr_mult', 'decay_mult')}
            if 'backbone' in name or not known:
                dropped.append(f'custom_keys[{name!r}]={settings!r}')
            else:
                kept[name] = known
    return kept, dropped


def _schedule_changes(
    cfg: Config, schedule: Any, keep_warmup: bool, notes: list[str]
) -> list[Change]:
    """Let every rate go to its own end, and warm up."""
    old = [schedule] if isinstance(schedule, Mapping) else list(schedule or [])
    new: list[Any] = copy.deepcopy(old)
    reasons = []
    rates = [entry for entry in new if not str(entry.get('type')).endswith('Momentum')]
    absolute = [entry for entry in rates if entry.get('eta_min')]
    if absolute:
        for entry in absolute:
            entry['eta_min'] = 0.0
        reasons.append(
            'The final rate was absolute; the low rates of the lower layers would have risen to it.'
        )
    one_cycle = [entry for entry in old if 'OneCycle' in str(entry.get('type'))]
    if one_cycle:
        notes.append(
            f'param_scheduler has {one_cycle[0]["type"]}, which sets absolute rates: check '
            'eta_max against the new learning rate.'
        )
    if not any(map(_warms_up, old)) and not one_cycle and not keep_warmup:
        new.insert(0, _warm_up(cfg.get('train_cfg') or {}))
        reasons.append('AdamW needs to warm up.')
    if not reasons:
        return []
    return [Change('param_scheduler', old, new, ' '.join(reasons), replaces=True)]


def _warms_up(entry: Mapping) -> bool:
    kind = str(entry.get('type')).split('.')[-1]
    rises = entry.get('start_factor', entry.get('factor', 1)) < 1
    return 'Warmup' in kind or (kind in ('LinearLR', 'ConstantLR', 'PolyLR') and rises)


def _warm_up(loop: Mapping) -> dict:
    """A twentieth of the training, but no more than 1,500 iterations or five epochs."""
    warmup = dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0)
    if loop.get('max_iters'):
        return dict(warmup, end=min(_WARMUP, max(int(loop['max_iters']) // 20, 1)))
    if loop.get('max_epochs'):  # how many iterations one has, the config does not tell
        end = min(max(round(loop['max_epochs'] / 20), 1), 5)
        return dict(warmup, by_epoch=True, end=end, convert_to_iter_based=True)
    return dict(warmup, end=_WARMUP)


# ------------------------------------------------------------------------------ the rest


def _remaining_notes(cfg: Config, options: SwapOptions, swap: Swap) -> None:
    if cfg.get('load_from'):
        swap.notes.append(
            f'load_from={cfg.load_from!r} stays: it fills what fits by name and shape, which is '
            'nothing of the new backbone.'
        )
    for where, holder in _ancestors(cfg, options.path):
        init = holder.get('init_cfg')
        if isinstance(init, Mapping) and init.get('type') == 'Pretrained':
            swap.notes.append(
                f'{where}.init_cfg loads {init.get("checkpoint")}: weights of the whole model '
                'with its old backbone. Neck and heads take them, the new backbone does not; they '
                'were trained on other maps, so retrain them.'
            )
    for path, other in nested_backbones(cfg.model):
        if not options.path.startswith(path):
            swap.notes.append(
                f'{path} ({other["type"]}) stays, and sees images of the same normalisation as the '
                'new backbone.'
            )
