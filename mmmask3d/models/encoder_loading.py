"""Fill an encoder from a checkpoint file: all of it or an error, and never by unpickling."""

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from mmmask3d.checkpoints.locations import read_checkpoint
from mmmask3d.models.adapter import is_adapter, load_adapter
from mmmask3d.models.encoder_names import conversion_hint, some
from mmmask3d.models.encoder_record import arch_settings, encoder_config, is_timm, read_meta
from mmmask3d.models.patches import resample_patch_embed
from mmmask3d.models.pos_embed import GRID_KEY, grid_from_checkpoint

# An encoder inside a Mask3DPyramid comes first: `backbone.` would match it too.
_PREFIXES = tuple(
    f'{outer}backbone.{inner}' for inner in ('vit.', '') for outer in ('', 'module.', 'model.')
)


def encoder_state(
    checkpoint: Mapping,
    prefix: str | None = None,
    source: str = 'checkpoint',
    with_lora: bool = False,
) -> OrderedDict[str, Tensor]:
    """The encoder's part of a loaded checkpoint, keys without prefix, with its metadata.

    Args:
        checkpoint: what the file held: ``{'state_dict': ..., 'meta': ...}`` or a bare state dict.
        prefix: where the encoder's keys are; None takes ``backbone.`` if there is such a key, and
            the whole file otherwise.
        source: the file, for messages.
        with_lora: take LoRA matrices too, which are no encoder.

    Raises:
        ValueError: if there are no tensors, no key starts with ``prefix``, or there are LoRA
            matrices alone.
    """
    state_dict = checkpoint.get('state_dict', checkpoint)
    keys = [k for k, v in state_dict.items() if isinstance(v, Tensor)]
    if prefix is None:
        prefix = next((p for p in _PREFIXES if any(k.startswith(p) for k in keys)), '')
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    state = OrderedDict((k[len(prefix) :], state_dict[k]) for k in keys if k.startswith(prefix))
    if not keys:
        raise ValueError(
            f'{source}: expected tensors by name, alone or under the key state_dict; found no '
            f'tensor, and the keys {some([str(k) for k in state_dict])}.'
            + (
                conversion_hint(checkpoint, source)
                or ' Save the part with the weights, with the names of '
                'mmpretrain.VisionTransformer, to a file of its own.'
            )
        )
    if not state:
        raise ValueError(
            f'{source}: no key starts with {prefix!r}. The file holds {len(keys)} tensors: '
            f'{some(keys)}. Give the prefix under which the encoder stands there.'
        )
    if not with_lora and any('.lora_' in key for key in state):
        raise ValueError(
            f'{source}: holds LoRA matrices and not the encoder they were trained in. Add them to '
            f'its weights once, and use the result: mmmask3d extract {source} encoder.safetensors'
        )
    grid = grid_from_checkpoint(checkpoint, prefix)
    recorded = (getattr(state_dict, '_metadata', None) or {}).get(prefix.rstrip('.'), {})
    recorded = recorded if grid is None else {**recorded, GRID_KEY: grid}
    state._metadata = OrderedDict({'': recorded})  # type: ignore[attr-defined]
    return state


def load_encoder(
    model: nn.Module,
    checkpoint: str | os.PathLike,
    prefix: str | None = None,
    map_location: str = 'cpu',
    sha256: str | None = None,
    base: str | None = None,
) -> None:
    """Load ``checkpoint`` into an encoder, strictly; an adapter with the weights it belongs to.

    Args:
        model: a ViT with the names of ``mmpretrain.VisionTransformer``.
        checkpoint: see :func:`~mmmask3d.checkpoints.locations.read_checkpoint`;
            ``mmmask3d://NAME`` is a model of the zoo.
        prefix: see :func:`encoder_state`.
        map_location: as for ``torch.load``.
        sha256: expected hash of the file, 64 hexadecimal digits; a URL can carry it itself, as
            ``https://...#sha256=...``.
        base: of an adapter, where the weights it belongs to are; None for the recorded location.

    Raises:
        ValueError: ``base`` without an adapter.
        RuntimeError: if the file lacks a key of the encoder, has one that the encoder has not, or
            a shape differs; the message lists them. Also if the file says that its encoder has
            another number of attention heads or other norms, or its hash is not the expected one.
    """
    checkpoint = os.fspath(checkpoint)
    loaded = read_checkpoint(checkpoint, map_location, sha256)
    if is_adapter(loaded, base):
        check_settings(model, loaded, checkpoint)
        load_adapter(model, loaded, checkpoint, base, partial(_load_base, model))
        return
    state = encoder_state(loaded, prefix, checkpoint)
    hint = _described(loaded) or conversion_hint(loaded, checkpoint).strip()
    hint = hint or 'Build the model as the checkpoint was trained, or give the right prefix.'
    _fit_patches(model, state, checkpoint)
    check_tensors(model, state, checkpoint, hint, resampled=('pos_embed',))
    check_settings(model, loaded, checkpoint)
    model.load_state_dict(state, strict=True)
    print_log(f'Loaded all {len(state)} encoder tensors from {checkpoint}.', logger='current')


def _load_base(model: nn.Module, location: str | None) -> None:
    if location is None:
        raise ValueError('The adapter does not say where these weights are.')
    load_encoder(model, location)


def _fit_patches(model: nn.Module, state: OrderedDict[str, Tensor], source: str) -> None:
    """Resample the patch embedding of a file whose patches have another size than the model's."""
    name = 'patch_embed.projection.weight'
    ours, theirs = model.state_dict().get(name), state.get(name)
    if ours is None or theirs is None or theirs.ndim != 4 or ours.shape[:2] != theirs.shape[:2]:
        return
    size = ours.shape[-1]
    if ours.shape == theirs.shape or theirs.shape[-1] != theirs.shape[-2]:
        return
    print_log(
        f'{source}: patch embedding resampled from patches of {theirs.shape[-1]} pixels to {size}.',
        logger='current',
    )
    state[name] = resample_patch_embed(theirs, size)


def check_tensors(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    hint: str,
    resampled: Sequence[str] = (),
) -> None:
    """Compare names and shapes of a model's tensors with those of a file.

    Args:
        model: what is to be filled.
        state: the file's tensors.
        source: the file, for the message.
        hint: what to do, for the message.
        resampled: names of position embeddings, of which only the channels must agree.

    Raises:
        RuntimeError: they differ; the message lists what is missing, unknown and of another shape.
    """
    own = model.state_dict()
    missing = [k for k in own if k not in state]
    unexpected = [k for k in state if k not in own]
    differing = [
        f'{k} {tuple(state[k].shape)} (here {tuple(own[k].shape)})'
        for k in own
        if k in state and k not in resampled and state[k].shape != own[k].shape
    ] + [
        f'{k} with {state[k].shape[-1]} channels (here {own[k].shape[-1]})'
        for k in resampled
        if k in own and k in state and state[k].shape[-1] != own[k].shape[-1]
    ]
    if missing or unexpected or differing:
        raise RuntimeError(
            f'{source} does not fill this {type(model).__name__}.\n'
            f'  missing in the file ({len(missing)}): {some(missing)}\n'
            f'  unknown here ({len(unexpected)}): {some(unexpected)}\n'
            f'  of another shape ({len(differing)}): {some(differing)}\n{hint}'
        )


def _described(checkpoint: Mapping) -> str:
    """What the file says of its encoder, for a message."""
    backbone = read_meta(checkpoint).get('backbone')
    if not isinstance(backbone, Mapping):
        return ''
    kind = 'TimmViT' if is_timm(backbone) else 'Mask3DViT'
    settings = ', '.join(f'{k}={v!r}' for k, v in backbone.items() if k != 'type')
    return f'Build mmmask3d.{kind}({settings}), which the file was made by, or give a prefix.'


def check_settings(model: nn.Module, checkpoint: Mapping, source: str) -> None:
    """Compare what no tensor tells and changes every feature, where the file records it.

    Args:
        model: an encoder, a ``VisionTransformer``.
        checkpoint: an export, or the checkpoint of a run with the text of its config.
        source: its name.

    Raises:
        RuntimeError: another number of attention heads, other layer norms, another model of timm or
            another normalisation of the images.
    """
    try:
        backbone = encoder_config(checkpoint, None, source)
    except ValueError:  # nothing is recorded, or nothing that can be read without running it
        return
    arch: Mapping
    ours: Any
    if is_timm(backbone):
        meta, name = read_meta(checkpoint), getattr(model, 'model_name', type(model).__name__)
        built_by, heads = backbone['model'].split('.')[0], getattr(model, 'num_heads', None)
        arch = meta.get('arch') or backbone.get('model_args') or {}
        ours = getattr(model, 'normalisation', None)
        ours = ours and {k: list(v) for k, v in ours.items()}
        settings = [
            ('the layers of {}', built_by, name.split('.')[0], f'model={built_by!r}'),
            ('images normalised with {}', meta.get('normalisation'), ours, f'model={built_by!r}'),
        ]
    else:
        arch, name = arch_settings(backbone), type(model).__name__
        heads = getattr(model, 'arch_settings', {}).get('num_heads')
        norm_cfg = backbone.get('norm_cfg', {})
        eps = {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)}
        theirs = norm_cfg.get('eps')
        ours = theirs if theirs in eps else next(iter(eps), None)
        settings = [('norms with eps={}', theirs, ours, f'{norm_cfg=!r}')]
        _compare_resize(model, backbone, source)
    heads_of = arch.get('num_heads')
    place = 'model_args' if is_timm(backbone) else 'arch'
    remedy = f'num_heads={heads_of} in its {place}'
    settings.append(('{} attention heads', heads_of, heads, remedy))
    for what, theirs, ours, remedy in settings:
        if theirs and ours and theirs != ours:
            raise RuntimeError(
                f'{source}: its encoder has {what.format(theirs)}, this {name} has '
                f'{what.format(ours)}. The features would be others. Build it with {remedy}.'
            )


def _compare_resize(model: nn.Module, backbone: Mapping, source: str) -> None:
    """Say so where positions are resampled in another way."""
    resize = getattr(model, 'pos_embed_resize', None)
    if resize is not None and (backbone.get('pos_embed_resize') or {}) != resize:
        print_log(
            f'{source}: its positions are resampled with pos_embed_resize='
            f'{backbone.get("pos_embed_resize")!r}, here with {resize!r}. At other sizes than '
            'those of the file the features differ a little.',
            logger='current',
            level=logging.WARNING,
        )
