"""Turn a checkpoint into weights that may be given away, with a model card that says what they are.

Everything but weights is left out: optimiser, schedules, hooks, histories, and the text of the
config with its paths. What is needed to build and to judge the model goes into the file's metadata
and the card. Nothing is published whose data are for research only, or whose data are not known.
The command is ``mmmask3d publish``.
"""

import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmmask3d.atomic_file import write_file
from mmmask3d.checkpoints.files import load_checkpoint_file, safetensors_bytes
from mmmask3d.checkpoints.hub import upload_files
from mmmask3d.models import encoder_record as record
from mmmask3d.models.adapter import is_adapter
from mmmask3d.models.pos_embed import GRID_KEY
from mmmask3d.weights import export
from mmmask3d.weights.zoo import build_model

#: Names the layout of the metadata in a published file with a whole model.
MODEL_FORMAT = 'mmmask3d-model-1'

_OF_AN_ADAPTER = (
    'format', 'backbone', 'arch', 'normalisation', 'patch_size', GRID_KEY, 'lora', 'base',
)  # fmt: skip
_RESTRICTED = r'non-?commercial|research[- ]only|\bNC\b|-NC-|for research|academic'


class PublishingError(ValueError):
    """The weights cannot or must not be published; the message says why and what to do."""


def check_terms(data: list[Mapping] | None, data_license: str, terms: str, source: str) -> None:
    """Refuse what must not be given away.

    Args:
        data: Data sets as :func:`~mmmask3d.weights.export.describe_data` gives them.
        data_license: What the publisher says about the terms of the frames.
        terms: Terms of the weights.
        source: The file, for messages.

    Raises:
        PublishingError: Data unknown or for research only, or a statement is empty.
    """
    if not data_license.strip() or not terms.strip():
        raise PublishingError(
            f'{source}: say under which terms the training frames were used (--data-license) and '
            'under which the weights are given away (--terms).'
        )
    if not data:
        raise PublishingError(
            f'{source}: does not tell which data it was trained on. Publish the checkpoint of the '
            'run, or an encoder that was extracted from it, or pass the config with --config.'
        )
    text = ' '.join(str(value) for entry in data for value in entry.values())
    if named := export.research_names([text]):
        raise PublishingError(
            f'{source}: was trained on frames of {", ".join(named)}, by the names in its config '
            f'({text.strip()}), which are for research only. Weights trained on them are not '
            'published.'
        )
    if _restricted(data_license):
        raise PublishingError(
            f'{source}: the terms of its frames ({data_license!r}) restrict their use. Weights '
            'trained on such frames are not published.'
        )


def _restricted(terms: str | None) -> bool:
    return bool(re.search(_RESTRICTED, terms or '', re.IGNORECASE))


def without_init(model: Any) -> Any:
    """A model's config without the weights it started from, which its own have replaced."""
    if isinstance(model, Mapping):
        return {
            k: without_init(v)
            for k, v in model.items()
            if not (
                k in ('init_cfg', 'pretrained')
                and (v is True or isinstance(v, str) or 'Pretrained' in str(v))
            )
        }
    if isinstance(model, list | tuple):
        return type(model)(without_init(v) for v in model)
    return model


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype, source: str) -> OrderedDict[str, Tensor]:
    out = OrderedDict()
    for key, value in state.items():
        value = value.detach().cpu()
        if value.is_floating_point():
            value = value.to(dtype)
            if not torch.isfinite(value).all():
                raise PublishingError(
                    f'{source}: {key} holds NaN, infinity, or a number beyond {dtype}.'
                )
        out[key] = value.contiguous()
    return out


def _model_state(checkpoint: Mapping, config: Mapping, source: str) -> tuple[dict, dict]:
    """Tensors of a whole model, and metadata with which it is built again."""
    if 'state_dict' not in checkpoint:
        raise PublishingError(f'{source}: no state_dict; expected the checkpoint of a run.')
    state = OrderedDict(
        (k.removeprefix('module.'), v)
        for k, v in checkpoint['state_dict'].items()
        if isinstance(v, Tensor)
    )
    model, state = export.without_anchor(without_init(config['model']), state)
    scope = config.get('default_scope') or 'mmmask3d'
    meta = {
        'format': MODEL_FORMAT,
        'default_scope': scope,
        'model': model,
        'dataset_meta': record.read_meta(checkpoint).get('dataset_meta'),
    }
    backbone = model.get('backbone', {})
    if str(backbone.get('type')).endswith(('Mask3DViT', 'TimmViT')):
        backbone = export.described(backbone)
        encoder = export.encoder_state_dict(checkpoint, source)
        grid = export.source_grid(encoder, checkpoint, backbone, source)
        meta |= export.encoder_entries(backbone, grid)
    return state, meta


def _verify(part: str, state: Mapping[str, Tensor], meta: Mapping, source: str) -> None:
    """Load into a freshly built model, strictly."""
    if part == 'adapter':  # was shown when it was extracted, with the weights it belongs to
        return
    if part == 'encoder':
        export.load_everywhere(state, meta['backbone'], tuple(meta[GRID_KEY]))
        return
    model = build_model(meta['model'], meta['default_scope'])
    try:
        export.load_strictly(model, state, type(model).__name__)
    except ValueError as error:
        raise PublishingError(f'{source}: {error}') from error


def publish(
    source: str | os.PathLike,
    prefix: str | os.PathLike,
    data_license: str,
    terms: str,
    part: str = 'encoder',
    dtype: str = 'float32',
    config: Mapping | None = None,
    metrics: Mapping | None = None,
    init_license: str | None = None,
    made_by: str | None = None,
) -> dict[str, str]:
    """Write ``<prefix>-<8 digits of its sha256>.safetensors`` with its model card (.json, .md).

    Args:
        source: Checkpoint of a run, or an encoder or adapter extracted from one.
        prefix: Folder and name of the model.
        data_license: Terms under which the training frames were used.
        terms: Terms under which the weights are given away.
        part: ``'encoder'`` or the whole ``'model'``.
        dtype: ``'float32'`` or ``'float16'``.
        config: Config of the run, where the checkpoint does not hold it.
        metrics: Figures of an evaluation, by name.
        init_license: Terms of the weights that the training started from, if it did.
        made_by: Command that reproduces these weights, for the card.

    Returns:
        Paths of the weights and of the two cards, and the sha256 of the weights.

    Raises:
        PublishingError: Not allowed, or the source does not hold what is needed.
    """
    name = os.fspath(source)
    checkpoint = load_checkpoint_file(name)
    meta = record.read_meta(checkpoint)
    config = export.config_of_run(meta, config)
    told = export.provenance(meta, config)
    check_terms(told['data'], data_license, terms, name)
    started_from = told['initialised_from']
    init_license = init_license or told['init_license']
    if started_from and not init_license:
        raise PublishingError(
            f'{name}: the training started from {", ".join(started_from)}, whose terms bind these '
            'weights too. State them with --init-license.'
        )
    if _restricted(init_license) and not _restricted(terms):
        raise PublishingError(
            f'{name}: the training started from weights under {init_license!r}, which restrict '
            f'their use, so these cannot be given away under {terms!r}.'
        )
    if is_adapter(checkpoint):
        part, state = 'adapter', checkpoint['state_dict']
        out = {k: meta[k] for k in _OF_AN_ADAPTER if k in meta}
    elif part == 'encoder':
        backbone = export.described(record.encoder_config(checkpoint, config, name))
        state = export.encoder_state_dict(checkpoint, name)
        grid = export.source_grid(state, checkpoint, backbone, name)
        out = {'format': export.FORMAT, **export.encoder_entries(backbone, grid)}
    elif config is None:
        raise PublishingError(f'{name}: does not hold the config of its model. Pass --config.')
    else:
        state, out = _model_state(checkpoint, config, name)
    _verify(part, _cast(state, torch.float32, name), out, name)
    state = _cast(state, getattr(torch, dtype), name)
    out |= {
        **told,
        'data_license': data_license,
        'terms': terms,
        'init_license': init_license,
        'made_by': made_by,
        'figures': metrics,
        'dtype': dtype,
        'tensors_sha256': export.tensors_sha256(state),
        'published_by': f'mmmask3d {export.package_version()}',
    }
    return _write(Path(prefix), state, export.plain_values(out), part)


def _write(prefix: Path, state: Mapping[str, Tensor], meta: dict, part: str) -> dict[str, str]:
    """Write the three files: all of them or none."""
    data = safetensors_bytes(state, {k: json.dumps(v) for k, v in meta.items()})
    sha256 = hashlib.sha256(data).hexdigest()
    stem = prefix.with_name(f'{prefix.name}-{sha256[:8]}')
    weights = stem.with_name(f'{stem.name}.safetensors')
    card = {
        'name': prefix.name,
        'file': weights.name,
        'sha256': sha256,
        'bytes': len(data),
        'part': part,
        'parameters': sum(v.numel() for v in state.values()),
        **meta,
    }
    files = {
        weights: data,
        stem.with_name(f'{stem.name}.json'): (json.dumps(card, indent=1) + '\n').encode(),
        stem.with_name(f'{stem.name}.md'): card_text(card).encode(),
    }
    written = []
    try:
        for path, content in files.items():
            write_file(path, content)
            written.append(path)
        export.check_written(weights, state)
    except BaseException:
        for path in written:
            path.unlink()
        raise
    names = [str(path) for path in files]
    return dict(zip(('weights', 'card', 'text'), names, strict=True), sha256=sha256)


def upload(published: Mapping[str, str], repository: str) -> str:
    """Put what :func:`publish` wrote into a repository of the Hugging Face hub.

    ``hf://owner/name`` then names the weights, ``encoder.safetensors`` or ``model.safetensors``;
    the cards are ``config.json`` and ``README.md``.

    Args:
        published: What :func:`publish` returned.
        repository: ``owner/name``.

    Returns:
        Address of the commit.

    Raises:
        UploadError: The hub refuses.
    """
    weights = Path(published['weights'])
    card = json.loads(Path(published['card']).read_text())
    card['file'] = card['part'] + weights.suffix
    files = {
        card['file']: weights.read_bytes(),
        'config.json': (json.dumps(card, indent=1) + '\n').encode(),
        'README.md': f'---\nlibrary_name: mmmask3d\n---\n\n{card_text(card)}'.encode(),
    }
    return upload_files(repository, files, f'{weights.name}, {card["published_by"]}')


def card_text(card: Mapping) -> str:
    """The model card for people: Markdown from the same entries."""

    def plain(value: Any) -> str:
        if isinstance(value, Mapping):
            return ', '.join(f'{k} {plain(v)}' for k, v in value.items() if v not in (None, ''))
        if isinstance(value, list | tuple):
            return '; '.join(plain(v) for v in value)
        return str(value)

    names = card['initialised_from']
    rows = {
        'File': f'`{card["file"]}`, {card["bytes"]:,} bytes, {card["dtype"]}',
        'sha256': f'`{card["sha256"]}`',
        'Holds': f'{card["part"]}, {card["parameters"]:,} numbers',
        'Architecture': plain(card.get('arch')),
        'Method': plain(card.get('method')),
        'Data': plain(card['data']),
        'Terms of the data': card['data_license'],
        'Terms of the weights': card['terms'],
        'Belongs to': plain(card.get('base')),
        'Started from': 'not recorded' if names is None else plain(names) or 'random weights',
        'Terms of those': card['init_license'],
        'Schedule': plain(card['schedule']),
        'Trained for': plain({k: card[k] for k in ('epoch', 'iter')}),
        'Seed': card['seed'],
        'Made by': f'`{card["made_by"]}`' if card['made_by'] else None,
        'Published by': card['published_by'],
    }
    lines = [f'# {card["name"]}', '', '| | |', '|---|---|']
    lines += [f'| {k} | {v} |' for k, v in rows.items() if v not in (None, '', 'None')]
    lines += ['', '## Figures', '']
    if card['figures']:
        lines += ['| | |', '|---|---|']
        lines += [f'| {k} | {v:.4g} |' for k, v in card['figures'].items()]
    else:
        lines.append('Not evaluated.')
    return '\n'.join(lines) + '\n'
