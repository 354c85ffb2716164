"""Turn a pre-training checkpoint into an encoder-only one: pick, resample, describe, verify, write.

Everything here is a function of its arguments; the command is ``mmmask3d extract``.
"""

import hashlib
import inspect
import json
import os
import re
import subprocess
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmpretrain.models import VisionTransformer
from torch import Tensor

from mmmask3d.atomic_file import write_file
from mmmask3d.checkpoints.download import file_sha256
from mmmask3d.checkpoints.files import (
    load_checkpoint_file,
    safetensors_bytes,
    save_checkpoint_atomic,
)
from mmmask3d.config_files import nested_dicts
from mmmask3d.datasets.masking_config import masking_defaults, masking_steps
from mmmask3d.models.encoder_loading import encoder_state
from mmmask3d.models.encoder_names import conversion_hint, find_tensors
from mmmask3d.models.encoder_record import (
    arch_settings,
    as_pair,
    is_timm,
    parse_config_text,
    read_meta,
)
from mmmask3d.models.mask3d_vit import Mask3DViT
from mmmask3d.models.pos_embed import GRID_KEY, resize_to_grid
from mmmask3d.models.timm_vit import TimmViT
from mmmask3d.registry import MODELS
from mmmask3d.version import __version__

#: Names the layout of the metadata in an exported file.
FORMAT = 'mmmask3d-encoder-1'
_POS_EMBED = 'pos_embed'
# Of mmpretrain's names and of timm's.
_PATCH_WEIGHTS = ('patch_embed.projection.weight', 'patch_embed.proj.weight')
# Data sets whose terms allow research only, or state nothing more; as they are called in configs.
_RESEARCH_ONLY = {
    'ScanNet': r'scan_?net',
    'NYU Depth v2': r'nyu',
    'SUN RGB-D': r'sun_?rgb_?d',
    'Cityscapes': r'cityscapes',
    '7-Scenes': r'(7|seven)_?scenes',
    'Matterport3D': r'matterport|mp3d',
    'KITTI': r'kitti',
    'Taskonomy': r'taskonomy',
    'Gibson': r'gibson',
}
#: Arguments of ``VisionTransformer`` that do not change which parameters exist.
_RUNTIME_ARGS = ('self', 'img_size', 'out_indices', 'out_type', 'frozen_stages', 'init_cfg')


def encoder_state_dict(checkpoint: Mapping, source: str = 'checkpoint') -> OrderedDict[str, Tensor]:
    """Return the encoder's tensors without their prefix; other parts of the model are left out.

    Those of a ``TimmViT`` have timm's own names. An encoder-only checkpoint (no prefix) is accepted
    as it is, so that an export can be resampled again. The patch grid, where it is recorded, is in
    the result's ``_metadata``.

    Raises:
        ValueError: the file holds no ViT encoder; the message lists what is there.
    """
    picked = encoder_state(checkpoint, None, source)
    recorded = read_meta(checkpoint).get('backbone') or {}
    if 'trunk.' + _PATCH_WEIGHTS[1] in picked or is_timm(recorded):
        bare = OrderedDict((k.removeprefix('trunk.'), v) for k, v in picked.items())
        bare._metadata = picked._metadata  # type: ignore[attr-defined]
        return bare
    missing = [k for k in (_PATCH_WEIGHTS[0], _POS_EMBED) if k not in picked]
    if missing:
        tensors = checkpoint.get('state_dict', checkpoint)
        parts = Counter(k.split('.')[0] for k in tensors)
        inside = sorted({k.split('.')[0] for k in picked})
        raise ValueError(
            f'{source}: no Vision Transformer found: {", ".join(missing)} missing. The file holds '
            f'{", ".join(f"{name} ({n} tensors)" for name, n in sorted(parts.items()))}; looked '
            f'through: {", ".join(inside)}. Expected a checkpoint of a pre-training run '
            '(epoch_N.pth, with the encoder under backbone.) or an exported encoder.'
            + conversion_hint(checkpoint, source)
        )
    return picked


def source_grid(
    state_dict: Mapping[str, Tensor], checkpoint: Mapping, backbone: Mapping, source: str
) -> tuple[int, int]:
    """Return the patch grid ``(rows, columns)`` of the position embedding.

    The grid recorded in the checkpoint comes first, then ``img_size / patch_size`` of the config.
    A square number of patches alone is no evidence: 36 patches may be 6x6 or 4x9.

    Raises:
        ValueError: the grid does not have as many cells as the embedding has patches.
    """
    metadata = getattr(state_dict, '_metadata', None) or {}
    grid = read_meta(checkpoint).get(GRID_KEY) or metadata.get('', {}).get(GRID_KEY)
    where = 'recorded in the checkpoint'
    if grid is None:
        height, width = as_pair(backbone.get('img_size', 224))
        rows, columns = as_pair(backbone.get('patch_size', 16))
        grid = (height // rows, width // columns)
        where = f'from img_size={(height, width)} and patch_size={(rows, columns)} of the config'
    if _POS_EMBED not in state_dict:  # rotary positions are stored for no grid
        return int(grid[0]), int(grid[1])
    num_patches = state_dict[_POS_EMBED].shape[1] - _position_tokens(backbone)
    if grid[0] * grid[1] != num_patches:
        raise ValueError(
            f'{source}: the position embedding has {num_patches} patches, but the patch grid '
            f'{where} is {grid[0]}x{grid[1]}. Pass the config of the run with --config.'
        )
    return int(grid[0]), int(grid[1])


def _position_tokens(backbone: Mapping) -> int:
    """Extra tokens that have a position of their own."""
    if not is_timm(backbone):
        return int(backbone.get('with_cls_token', True))
    encoder = without_memory(backbone)
    return encoder.trunk.pos_embed.shape[1] - encoder.grid_size[0] * encoder.grid_size[1]


def resample_encoder(
    state_dict: Mapping[str, Tensor],
    source: tuple[int, int],
    target: tuple[int, int],
    with_cls_token: bool = True,
    pos_embed_resize: Mapping | None = None,
) -> OrderedDict:
    """Return a copy whose position embedding lies on the ``target`` grid (rows, columns)."""
    out = OrderedDict(state_dict)
    out[_POS_EMBED] = resize_to_grid(
        out[_POS_EMBED],
        source,
        target,
        num_extra_tokens=int(with_cls_token),
        **(pos_embed_resize or {}),
    )
    return out


def tensors_sha256(state_dict: Mapping[str, Tensor]) -> str:
    """Return a hash of names, dtypes, shapes and values that does not depend on order or format."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f'{name} {tensor.dtype} {list(tensor.shape)}\n'.encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def package_version() -> str:
    """Return the version, with the git commit when the package runs from its own checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / '.git').exists():
        return __version__
    wanted = ('--always', '--abbrev=12', '--exclude=*', '--dirty=, with local changes')
    try:
        commit = subprocess.run(
            ['git', '-C', str(root), 'describe', *wanted],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        # No git on this machine, or a checkout owned by somebody else.
        commit = 'commit unknown'
    return f'{__version__} ({commit})'


def describe_data(dataset: Any) -> list[dict]:
    """Return type, folder name and index of every data set in a (possibly nested) config.

    Only the last part of ``data_root`` is kept: an exported file is meant to be given away. Names
    of well-known data sets for research only, wherever in the config they stand, are kept as
    ``known_as``.
    """
    if isinstance(dataset, list | tuple):
        return [entry for item in dataset for entry in describe_data(item)]
    if not isinstance(dataset, Mapping):
        return []
    for key in ('datasets', 'dataset'):
        if key in dataset:
            return describe_data(dataset[key])
    entry = {
        'type': str(dataset.get('type')),
        'data_root': os.path.basename(str(dataset.get('data_root', '')).rstrip('/')),
        'ann_file': str(dataset.get('ann_file', '')),
    }
    named = research_names(
        str(dataset.get(key, '')) for key in ('type', 'data_root', 'data_prefix', 'ann_file')
    )
    return [{**entry, 'known_as': named} if named else entry]


def research_names(texts: Iterable[str]) -> list[str]:
    """Names of the data sets for research only that are spoken of."""
    text = ' '.join(texts).replace('-', '_')
    return [name for name, pattern in _RESEARCH_ONLY.items() if re.search(pattern, text, re.I)]


def initial_weights(config: Mapping) -> list[str]:
    """Names of the files a model started from, by ``init_cfg``, ``pretrained`` or ``load_from``."""
    found = []
    for entry in nested_dicts(config.get('model', {})):
        given = entry.get('pretrained')
        if 'Pretrained' in str(entry.get('type')) and entry.get('checkpoint'):
            found.append(entry['checkpoint'])
        if isinstance(given, str):
            found.append(given)
        elif given is True and entry.get('model'):
            found.append(f'{entry["model"]} of timm')
    found += [config['load_from']] if config.get('load_from') else []
    return [os.path.basename(str(name)) for name in found]


def origin(meta: Mapping, config: Mapping | None) -> dict:
    """What the weights started from, in this run and before: names of files, and their terms.

    ``initialised_from`` is None where nothing tells it.
    """
    before, converted = meta.get('initialised_from'), meta.get('converted_from')
    known = config is not None or before is not None or converted
    names = [*(before or ()), *([f'weights of {converted}'] if converted else ())]
    names += initial_weights(config or {})
    return {
        'initialised_from': list(dict.fromkeys(names)) if known else None,
        'init_license': meta.get('init_license'),
    }


def without_anchor(model: Mapping, state: Mapping[str, Tensor]) -> tuple[dict, OrderedDict]:
    """A pre-trainer's config and tensors without its anchor, which serves its training alone."""
    config = {k: v for k, v in model.items() if k not in ('anchor', 'cache_gib')}
    return config, OrderedDict((k, v) for k, v in state.items() if not k.startswith('anchor.'))


def describe_method(config: Mapping) -> dict:
    """Return what the encoder was trained to do, in plain values, from the run's config."""
    model = config.get('model', {})
    method: dict[str, Any] = {'type': str(model.get('type'))}
    heads = model.get('heads')
    if isinstance(heads, Mapping):
        method['targets'] = [str(name) for name in heads]
    if anchor := model.get('anchor'):
        teacher = anchor.get('teacher') or {}
        method['anchor'] = str(teacher.get('model') or teacher.get('type') or 'its own start')
    for _, step in masking_steps(config.get('train_dataloader'), ''):
        said = {k: v for k, v in step.items() if k != 'defaults' and v is not None}
        method['masking'] = plain_values({**masking_defaults(config), **said})
    return method


def plain_values(value: Any) -> Any:
    """Reduce a config value to what JSON and the restricted unpickler both take."""
    return json.loads(json.dumps(value, default=str))


def config_of_run(meta: Mapping, config: Mapping | None) -> Mapping | None:
    """``config``, or the one that the checkpoint records."""
    return parse_config_text(meta['cfg']) if config is None and meta.get('cfg') else config


def provenance(meta: Mapping, config: Mapping | None) -> dict:
    """What weights were trained to do, on which data, from what and for how long.

    Of an export that is exported again these are those of the first export.
    """
    config = config_of_run(meta, config)
    told: dict[str, Any] = {key: meta.get(key) for key in ('method', 'data', 'schedule')}
    if config is not None and 'train_dataloader' in config:
        told = {
            'method': describe_method(config),
            'data': describe_data(config['train_dataloader'].get('dataset')),
            'schedule': schedule(config),
        }
    return {**told, **origin(meta, config), **{k: meta.get(k) for k in ('epoch', 'iter', 'seed')}}


def schedule(config: Mapping) -> dict:
    """Length, batch and optimiser of a run, from its config."""
    train, wrapper = config.get('train_cfg') or {}, config.get('optim_wrapper') or {}
    loader = config.get('train_dataloader') or {}
    optimizer = wrapper.get('optimizer') or {}
    optimizer = {k: optimizer[k] for k in ('type', 'lr', 'weight_decay') if k in optimizer}
    out = {k: train[k] for k in ('max_epochs', 'max_iters') if train.get(k) is not None}
    return {**out, 'batch_size_per_process': loader.get('batch_size'), 'optimizer': optimizer}


def encoder_metadata(
    checkpoint: Mapping,
    config: Mapping | None,
    backbone: Mapping,
    state_dict: Mapping[str, Tensor],
    grid: tuple[int, int],
    source: str | Path,
) -> dict:
    """Return the metadata of an export: what it is, where it comes from, and its hashes.

    Only strings, numbers, lists and dicts, so that it survives both ``weights_only`` loading and
    JSON.
    """
    return plain_values(
        {
            'format': FORMAT,
            **provenance(read_meta(checkpoint), config),
            **encoder_entries(backbone, grid),
            'exported_by': f'mmmask3d {package_version()}',
            'tensors_sha256': tensors_sha256(state_dict),
            'source_file': os.path.basename(str(source)),
            'source_sha256': file_sha256(source),
        }
    )


def build_plain_vit(backbone: Mapping, grid: tuple[int, int]) -> VisionTransformer:
    """Build mmpretrain's own ``VisionTransformer`` of the encoder's architecture and grid."""
    known = set(inspect.signature(VisionTransformer.__init__).parameters) - set(_RUNTIME_ARGS)
    rows, columns = as_pair(backbone.get('patch_size', 16))
    args = {k: v for k, v in backbone.items() if k in known}
    return VisionTransformer(
        **args, img_size=(grid[0] * rows, grid[1] * columns), out_type='featmap'
    )


def build_encoder(backbone: Mapping, grid: tuple[int, int] | None = None) -> Mask3DViT | TimmViT:
    """Build the package's own backbone of the encoder's architecture and grid, without weights.

    Args:
        backbone: config of a ``TimmViT`` or ``Mask3DViT``, or of mmpretrain's transformer.
        grid: patch rows and columns; None for those of the config.
    """
    args = {k: v for k, v in backbone.items() if k not in ('type', 'init_cfg', 'pretrained')}
    if grid is not None:
        rows, columns = as_pair(backbone.get('patch_size', 16))
        args['img_size'] = (grid[0] * rows, grid[1] * columns)
    return TimmViT(**args) if is_timm(backbone) else Mask3DViT(**args)


def load_encoder(backbone: Mapping, location: str, **options: Any) -> Any:
    """An encoder of a config, strictly filled with the weights of a location, for evaluation."""
    encoder = MODELS.build(with_weights(backbone, location, **options))
    encoder.init_weights()
    return encoder.eval()


def with_weights(backbone: Mapping, location: str, **options: Any) -> dict:
    """The config of an encoder that starts from other weights than it says."""
    kept = {k: v for k, v in backbone.items() if k not in ('init_cfg', 'pretrained')}
    return {**kept, 'init_cfg': dict(type='Pretrained', checkpoint=location, **options)}


def encoder_entries(backbone: Mapping, grid: tuple[int, int]) -> dict:
    """What metadata say of an encoder: how to build it, its sizes, and timm's normalisation."""
    patch_size = as_pair(backbone.get('patch_size', 16))
    config = {k: v for k, v in backbone.items() if k not in ('init_cfg', 'pretrained')}
    config['img_size'] = (grid[0] * patch_size[0], grid[1] * patch_size[1])
    entries = {'backbone': config, 'patch_size': patch_size, GRID_KEY: grid}
    if not is_timm(backbone):
        return {**entries, 'arch': arch_settings(backbone)}
    encoder = without_memory(backbone)
    arch = {key: getattr(encoder, key) for key in ('embed_dims', 'num_layers', 'num_heads')}
    return {**entries, 'arch': arch, 'normalisation': encoder.normalisation}


def described(backbone: Mapping) -> dict:
    """The config, with the patch size that a model of timm brings by itself."""
    if not is_timm(backbone) or backbone.get('patch_size'):
        return dict(backbone)
    return {**backbone, 'patch_size': without_memory(backbone).patch_size}


def without_memory(backbone: Mapping) -> Any:
    """The encoder on the meta device: sizes and settings, no numbers."""
    with torch.device('meta'):
        return build_encoder(backbone)


def load_strictly(model: torch.nn.Module, state_dict: Mapping[str, Tensor], name: str) -> None:
    """Load with no missing and no unexpected key, and check that the values have arrived.

    Raises:
        ValueError: the keys or shapes differ, or a tensor of the model is not the file's.
    """
    try:
        # A copy: load hooks may rewrite entries of the dict they are given. The model was built on
        # the grid of these tensors, which 36 patches alone would not tell (6x6 or 4x9).
        model = getattr(model, 'trunk', model)  # files have timm's names
        given: Any = OrderedDict(state_dict)
        given._metadata = OrderedDict(
            (path, {GRID_KEY: module.grid_size})
            for path, module in model.named_modules()
            if isinstance(module, Mask3DViT)
        )
        model.load_state_dict(given, strict=True)
    except RuntimeError as error:
        raise ValueError(
            f'the encoder does not load into {name}: {error}. Pass the config that the checkpoint '
            'was trained with.'
        ) from error
    loaded = model.state_dict()
    wrong = [k for k, v in state_dict.items() if not torch.equal(loaded[k].cpu(), v.cpu())]
    if wrong:
        raise ValueError(f'{name} changed these tensors on loading: {wrong}')


def load_everywhere(
    state_dict: Mapping[str, Tensor], backbone: Mapping, grid: tuple[int, int] | None = None
) -> dict[str, torch.nn.Module]:
    """Load into the package's encoder and, of a plain ViT, into mmpretrain's too.

    Args:
        state_dict: what is to be written.
        backbone: see :func:`build_encoder`.
        grid: see :func:`build_encoder`; not None for a plain ViT.

    Returns:
        The models that take it, filled, by name.

    Raises:
        ValueError: see :func:`load_strictly`.
    """
    encoder = build_encoder(backbone, grid)
    takers: dict[str, torch.nn.Module] = {f'mmmask3d.{type(encoder).__name__}': encoder}
    if grid is not None and not is_timm(backbone):
        takers['mmpretrain.VisionTransformer'] = build_plain_vit(backbone, grid)
    for name, model in takers.items():
        load_strictly(model, state_dict, name)
    return takers


def write_encoder(path: str | Path, state_dict: Mapping[str, Tensor], meta: Mapping) -> None:
    """Write ``.pth`` or ``.safetensors``; the file appears complete or not at all.

    A ``.pth`` file is ``{'state_dict', 'meta'}``; the grid is also put where torch hands it to
    the load hook of ``Mask3DViT``. safetensors metadata maps strings to strings: values are JSON.

    Raises:
        ValueError: another suffix, or the file does not hold what was written.
    """
    path = Path(path)
    tensors = OrderedDict((k, v.detach().cpu().contiguous().clone()) for k, v in state_dict.items())
    if path.suffix not in ('.pth', '.safetensors'):
        raise ValueError(f'{path}: the suffix must be .pth or .safetensors')
    if path.suffix == '.pth':
        grid: Any = {'version': 1, GRID_KEY: tuple(meta[GRID_KEY])}
        tensors._metadata = OrderedDict({'': grid})  # type: ignore[attr-defined]
        save_checkpoint_atomic({'state_dict': tensors, 'meta': dict(meta)}, path)
    else:
        write_file(path, safetensors_bytes(tensors, {k: json.dumps(v) for k, v in meta.items()}))
    check_written(path, tensors)


def check_written(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Read a file back.

    Raises:
        ValueError: it holds other tensors.
    """
    found = find_tensors(load_checkpoint_file(path), str(path))
    if tensors_sha256(found) != tensors_sha256(tensors):
        raise ValueError(f'{path}: reading the file back gives other tensors than were written')
