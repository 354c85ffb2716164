"""Adapters: files with LoRA matrices alone, which belong to public weights and are added to them.

An adapter holds ``NAME.lora_down.weight`` (rank, in), ``NAME.lora_up.weight`` (out, rank) and
``NAME.alpha`` for each linear layer NAME that was trained, under the names of the encoder's own
file. The layer's weight becomes ``W + alpha / rank * up @ down``. The metadata say which encoder it
is (``backbone``), how it was trained (``lora``), and under ``base`` which weights it belongs to:
their ``name``, ``location`` where others can read them too, and ``sha256``, see
:func:`base_sha256`.
"""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmmask3d.models.encoder_names import some
from mmmask3d.models.encoder_record import read_meta

#: Names the layout of an adapter's metadata.
FORMAT = 'mmmask3d-adapter-1'
_OF_A_SIZE = re.compile(r'(.*\.)?(patch_embed\..*|pos_embed)')
_PARTS = ('lora_down.weight', 'lora_up.weight', 'alpha')


def base_sha256(encoder: nn.Module) -> str:
    """Hash of an encoder's weights, the same for all files and sizes that they come in.

    The sha256 of the sorted sha256 of every parameter's shape and float32 values. Names do not
    enter, so that timm's, mmpretrain's and Hugging Face's layouts give one hash. The patch
    embedding and the position embedding are left out, as they are resampled to the patches and the
    image size at hand; buffers, such as the frequencies of rotary positions, follow from the
    architecture. LoRA matrices in the encoder do not count.
    """
    digests = []
    for name, parameter in encoder.named_parameters():
        if _OF_A_SIZE.fullmatch(name) or '.lora_' in name:
            continue
        digest = hashlib.sha256(f'{list(parameter.shape)}\n'.encode())
        values = parameter.detach().to('cpu', torch.float32).contiguous()
        digest.update(values.view(-1).view(torch.uint8).numpy().data)
        digests.append(digest.digest())
    return hashlib.sha256(b''.join(sorted(digests))).hexdigest()


def is_adapter(checkpoint: Mapping, base: str | None = None) -> bool:
    """Whether a loaded file is an adapter.

    Raises:
        ValueError: it is none, and ``base`` names weights to add it to.
    """
    found = read_meta(checkpoint).get('format') == FORMAT
    if base is not None and not found:
        raise ValueError(f'base={base!r} goes with the file of an adapter, and this is none.')
    return found


def adapter_tensors(encoder: nn.Module) -> OrderedDict[str, Tensor]:
    """The matrices of an encoder inside a ``LoRAEncoder``, as an adapter holds them."""
    out: OrderedDict[str, Tensor] = OrderedDict()
    for name, layer in encoder.named_modules():
        if hasattr(layer, 'lora_down'):
            name = name.removeprefix('trunk.')
            alpha = torch.tensor(layer.alpha, dtype=torch.float64)
            values = layer.lora_down.weight.detach(), layer.lora_up.weight.detach(), alpha
            out |= {f'{name}.{part}': v for part, v in zip(_PARTS, values, strict=True)}
    return out


def load_adapter(
    encoder: Any,
    adapter: Mapping,
    source: str,
    base: str | None,
    load: Callable[[str | None], None],
) -> None:
    """Fill an encoder with the weights that an adapter belongs to, and add the adapter.

    Args:
        encoder: changed in place.
        adapter: the loaded file.
        source: its name, for messages.
        base: where the weights are; None for the location that the adapter records.
        load: fills the encoder from a location, or from None if none is known.

    Raises:
        RuntimeError: the weights cannot be read, or are others than those of the adapter.
    """
    recorded = read_meta(adapter)['base']
    belongs = f'{source}: an adapter for {recorded["name"]} with the sha256 {recorded["sha256"]}'
    remedy = (
        "Give these weights: init_cfg=dict(type='Pretrained', checkpoint=ADAPTER, base=FILE), or "
        'make one file of both: mmmask3d extract ADAPTER encoder.safetensors --base FILE.'
    )
    try:
        load(base or recorded['location'])
    except (OSError, RuntimeError, ValueError) as error:
        raise RuntimeError(f'{belongs}, which could not be loaded. {remedy}\n{error}') from error
    found = base_sha256(encoder)
    if found != recorded['sha256']:
        raise RuntimeError(
            f'{belongs}, and {base or recorded["location"] or "the weights of that name"} holds '
            f'others, with {found}. (The hash leaves patch and position embedding out.) {remedy}'
        )
    _add(encoder, adapter['state_dict'], source)


@torch.no_grad()
def _add(encoder: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    trunk = getattr(encoder, 'trunk', encoder)
    own = {n: m.weight for n, m in trunk.named_modules() if isinstance(m, nn.Linear)}
    names = [k.removesuffix(f'.{_PARTS[0]}') for k in tensors if k.endswith(_PARTS[0])]
    expected = {f'{name}.{part}' for name in names for part in _PARTS}
    wrong = sorted(expected ^ set(tensors)) + [name for name in names if name not in own]
    if wrong or not names:
        raise RuntimeError(
            f'{source}: damaged, or no adapter of this {type(encoder).__name__}: expected '
            f'{", ".join(_PARTS)} of its linear layers; missing or unknown: {some(wrong)}.'
        )
    for name in names:
        down, up, alpha = (tensors[f'{name}.{part}'] for part in _PARTS)
        update = float(alpha) / down.shape[0] * (up.float() @ down.float())
        if update.shape != own[name].shape:
            raise RuntimeError(
                f'{source}: the matrices of {name} give {tuple(update.shape)}, the layer is '
                f'{tuple(own[name].shape)}: the file is damaged.'
            )
        own[name].add_(update.to(own[name]))
