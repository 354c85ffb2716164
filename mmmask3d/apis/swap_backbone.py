"""Plans the swap of a config's backbone for the encoder: what changes, to what, and why.

What a transformer needs to train well, beside the backbone itself, is nowhere checked by the
libraries: a config with a ResNet's normalisation, optimiser or schedule runs, and learns badly.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mmengine.config import Config

from mmmask3d.models.encoder_export import arch_settings

from .encoder_file import encoder_settings
from .replaced_backbone import Levels, bare, find_backbone, measure_levels
from .swap_proof import Proof

#: ImageNet's statistics of RGB in 0..255, with which the encoder is pre-trained.
MEAN = [123.675, 116.28, 103.53]
STD = [58.395, 57.12, 57.375]
#: Above this number of patches, windows are set: attention costs the square of it.
_MAX_GLOBAL_PATCHES = 2048
_WINDOW = 14
_WARMUP = 1500
_MISSING = object()


@dataclass(frozen=True)
class SwapOptions:
    """What the user may choose.

    Attributes:
        arch: architecture of the encoder; None takes that of the checkpoint, or ``'base'``.
        checkpoint: weights of the encoder; None starts at random.
        path: where the old backbone stands in the config.
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
        SwapError: there is no backbone there, or it gives no maps of whole-numbered strides.
    """
    old = find_backbone(cfg, options.path)
    swap = Swap(measure_levels(old, cfg.get('default_scope')), old)
    arch = _plan_backbone(cfg, options, swap)
    others = [
        *_pretrained_changes(cfg, options.path),
        *_normalisation_changes(cfg, options.path),
        *_optimiser_changes(cfg, options, arch, swap.notes),
    ]
    if options.backbone_only:
        swap.notes += [
            f'left as it is: {change.key} = {brief(change.old)}. {change.reason} Wanted: '
            f'{brief(change.new)}.'
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
        named = f'level {" and ".join(levels)} of the pyramid' if levels else proof.unused[0]
        what = f'No neck or head uses {named}'
    reason = f'{what}; on several GPUs training would stop at parameters without gradient.'
    if backbone_only:
        swap.notes.append(f'left as it is: {key} = {old}. {reason} Wanted: True.')
    else:
        swap.changes.append(Change(key, old, True, reason))


def _drop_unfit_keys(swap: Swap, parameters: Sequence[str]) -> None:
    for i, change in enumerate(swap.changes):
        if change.key != 'optim_wrapper':
            continue
        new = copy.deepcopy(change.new)
        custom = new['paramwise_cfg'].get('custom_keys', {})
        unfit = [key for key in custom if not any(key in name for name in parameters)]
        for key in unfit:
            del custom[key]
        if unfit:
            if not custom:
                del new['paramwise_cfg']['custom_keys']
            swap.changes[i] = replace(change, new=new)
            swap.notes.append(
                f'dropped from custom_keys, as they fit no parameter: {", ".join(unfit)}.'
            )


def brief(value: Any, most: int = 160) -> str:
    """A value on one line, cut where it is long."""
    text = ' '.join(repr(value).split()) if value is not None else 'not set'
    return text if len(text) <= most else text[: most - 4] + ' ...'


# ------------------------------------------------------------------------------ the backbone


def _plan_backbone(cfg: Config, options: SwapOptions, swap: Swap) -> dict:
    """Add the backbone itself; returns the widths and depths of its architecture."""
    if options.checkpoint:
        encoder = encoder_settings(options.checkpoint, options.arch)
    else:
        encoder = dict(arch=options.arch or 'base', patch_size=16, img_size=224)
        swap.notes.append(
            'no checkpoint is given, so the encoder starts at random: give '
            'its weights with --checkpoint, which is the point of the swap; if a random start is '
            'what you want, set layer_decay_rate=1, as its early layers have to learn too.'
        )
    arch = arch_settings(encoder)
    levels = swap.levels
    new = dict(
        type='mmmask3d.Mask3DPyramid',
        **encoder,
        out_strides=levels.strides,
        out_channels=levels.channels,
        out_indices=levels.indices,
        drop_path_rate=_drop_path(arch, options),
    )
    window = options.window_size
    if window is None:
        patches = _patches(cfg, encoder['patch_size'])
        window = _WINDOW if patches is None or patches > _MAX_GLOBAL_PATCHES else 0
    if window:
        new['window_size'] = window
        if arch['num_layers'] <= 4:
            # ViTDet's choice, the last layer of each quarter, is every layer of these.
            new['global_attn_indexes'] = (-1,)
    if swap.old_backbone.get('with_cp'):
        new['with_cp'] = True
    if options.checkpoint:
        new['init_cfg'] = dict(type='Pretrained', checkpoint=options.checkpoint)
    reason = f'The encoder with the maps of {swap.old_backbone["type"]}: {levels}.'
    if window:
        reason += (
            f' Attention in windows of {window}x{window} patches, as images are large (ViTDet).'
        )
    swap.changes.append(Change(options.path, bare(swap.old_backbone), new, reason, replaces=True))
    frozen = swap.old_backbone.get('frozen_stages', -1)
    if isinstance(frozen, int) and frozen >= 0:
        swap.notes.append(
            f'frozen_stages={frozen} of the old backbone is not carried over: it counts the stages '
            'of a ResNet, whose batch norms suffer from small batches. Layer decay keeps the '
            'early layers near their pre-training.'
        )
    return arch


def _drop_path(arch: Mapping, options: SwapOptions) -> float:
    """That of ViTDet's configs in detectron2 (projects/ViTDet): 0.1 for ViT-B, 0.4 for ViT-L."""
    if options.drop_path_rate is not None:
        return options.drop_path_rate
    return 0.1 if arch['embed_dims'] < 1024 else 0.4


def _patches(cfg: Config, patch_size: int) -> int | None:
    """Patches of the largest image a training sees; None where the pipelines do not tell."""
    sizes: list[Sequence[int]] = []
    crops: list[Sequence[int]] = []
    loader = cfg.get('train_dataloader') or cfg.get('test_dataloader') or {}
    for step in _transforms(loader.get('dataset')):
        kind = str(step.get('type', ''))
        if 'Crop' in kind and _is_size(step.get('crop_size')):
            crops.append(step['crop_size'])
        for key in ('scale', 'scales', 'img_scale'):
            value = step.get(key)
            entries = [value] if _is_size(value) else value if isinstance(value, list) else []
            sizes += [entry for entry in entries if _is_size(entry)]
    # A crop of a share of the image has values in 0..1.
    chosen = [size for size in crops if min(size) > 1] or sizes
    pixels = [side_a * side_b for side_a, side_b in chosen]
    return max(pixels) // patch_size**2 if pixels else None


def _is_size(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 2
        and all(isinstance(side, int | float) and side > 0 for side in value)
    )


def _transforms(value: Any) -> list[Mapping]:
    """Every transform below a data set, also within wrappers and branches."""
    if isinstance(value, Mapping):
        found = [entry for v in value.values() for entry in _transforms(v)]
        return [value, *found] if 'type' in value else found
    if isinstance(value, list | tuple):
        return [entry for v in value for entry in _transforms(v)]
    return []


# ------------------------------------------------------------------------------ beside it


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
            'Weights of the old backbone; the segmentor hands them to whatever backbone it finds.',
        )
        for where, holder in _ancestors(cfg, path)
        if holder.get('pretrained') is not None
    ]


def _normalisation_changes(cfg: Config, path: str) -> list[Change]:
    """Ours, in every preprocessor that an image passes on its way to the backbone."""
    places = _reidentification(cfg, path)
    for where, holder in [] if places else _ancestors(cfg, path):
        places += _preprocessors(holder.get('data_preprocessor'), f'{where}.data_preprocessor')
    if not places:  # mmpretrain's configs have it beside the model
        places = _preprocessors(cfg.get('data_preprocessor'), 'data_preprocessor')
    changes = []
    for where, old in places:
        flag = 'to_rgb' if _takes_to_rgb(old) else 'bgr_to_rgb'
        new = {'mean': MEAN, 'std': STD, flag: True}
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
                    'The colours of the pre-training: RGB with the statistics of ImageNet'
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
    cfg: Config, options: SwapOptions, arch: Mapping, notes: list[str]
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
    optimizer, adam = old['optimizer'], 'Adam' in str(old['optimizer'].get('type'))
    new_optimizer = dict(type='AdamW', lr=options.lr or 1e-4, betas=(0.9, 0.999), weight_decay=0.05)
    if adam:  # chosen for the heads of a model that is trained with it
        kept = {k: v for k, v in optimizer.items() if k not in ('type', 'lr')}
        lr = options.lr or optimizer.get('lr', new_optimizer['lr'])
        new_optimizer = {**new_optimizer, **kept, 'lr': lr}
    paramwise = dict(layer_decay_rate=options.layer_decay or _layer_decay(arch))
    custom, dropped = _custom_keys(old.get('paramwise_cfg') or {})
    if custom:
        paramwise['custom_keys'] = custom
    new = {k: v for k, v in old.items() if k not in ('optimizer', 'paramwise_cfg', 'constructor')}
    new.setdefault('type', 'OptimWrapper')
    new['constructor'] = 'mmmask3d.LayerDecayOptimWrapperConstructor'
    new['optimizer'] = new_optimizer
    new['paramwise_cfg'] = paramwise
    new['clip_grad'] = old.get('clip_grad') or dict(max_norm=1.0)
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


def _layer_decay(arch: Mapping) -> float:
    """ViTDet's, as above: 0.7 for ViT-B, 0.8 for the deeper ViT-L; milder for small encoders."""
    if arch['num_layers'] > 12:
        return 0.8
    return 0.7 if arch['embed_dims'] >= 768 else 0.75


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
    new, reasons = copy.deepcopy(old), []
    if any(entry.get('eta_min') for entry in old):
        for entry in new:
            if entry.get('eta_min'):
                entry['eta_min'] = 0.0
        reasons.append(
            'The final rate was absolute and meant for SGD; the low rates of the lower layers '
            'would have risen to it.'
        )
    one_cycle = [entry for entry in old if 'OneCycle' in str(entry.get('type'))]
    if one_cycle:
        notes.append(
            f'param_scheduler has {one_cycle[0]["type"]}, which sets absolute rates: check '
            'eta_max against the new learning rate.'
        )
    warm = any(
        str(entry.get('type')).split('.')[-1] in ('LinearLR', 'ConstantLR', 'PolyLR')
        and entry.get('start_factor', entry.get('factor', 1)) < 1
        for entry in old
    )
    if not warm and not one_cycle and not keep_warmup:
        loop = cfg.get('train_cfg') or {}
        end = min(_WARMUP, max(int(loop.get('max_iters', _WARMUP * 20)) // 20, 1))
        new.insert(0, dict(type='LinearLR', start_factor=1e-3, by_epoch=False, begin=0, end=end))
        reasons.append('AdamW needs to warm up.')
    if not reasons:
        return []
    return [Change('param_scheduler', old, new, ' '.join(reasons), replaces=True)]


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
        for name, entry in holder.items():
            backbone = entry.get('backbone') if isinstance(entry, Mapping) else None
            path = f'{where}.{name}' + ('.backbone' if isinstance(backbone, Mapping) else '')
            other = backbone if isinstance(backbone, Mapping) else entry
            named = 'backbone' in path.rsplit('.', 1)[-1]
            if named and isinstance(other, Mapping) and not options.path.startswith(path):
                swap.notes.append(
                    f'{path} ({other.get("type")}) stays, and sees images of the same '
                    'normalisation as the new backbone.'
                )
