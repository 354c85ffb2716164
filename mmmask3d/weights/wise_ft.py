"""Encoders between two others: a share of the weights of each (WiSE-FT, arXiv 2109.01903)."""

import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmmask3d.checkpoints.locations import local_file, read_checkpoint
from mmmask3d.models.encoder_record import encoder_config, read_meta
from mmmask3d.weights import export


def interpolate(first: str, second: str, shares: Sequence[float], out: str) -> list[str]:
    """Write ``(1 - share) * first + share * second`` for each share.

    Args:
        first: the encoder before training: an exported file, an adapter, or public weights, at a
            path, a URL or a location in a hub or zoo.
        second: the encoder after it, of the same architecture. One of the two records it. The
            result has the patch grid and patch size of the one that does, ``second`` if both do;
            positions and patches of the other are resampled to them.
        shares: of ``second``, 0 to 1.
        out: file to write; ``{share}`` in it is replaced, and needed for several shares.

    Returns:
        Lines that say what was done.

    Raises:
        ValueError: a share out of range, one file for several shares, or no file records its
            architecture.
        RuntimeError: the encoders are of different architectures.
    """
    wrong = [share for share in shares if not 0 <= share <= 1]
    if wrong or not shares:
        raise ValueError(f'share {wrong or "missing"}: expected 0 (all of A) to 1 (all of B).')
    if len(shares) > 1 and '{share}' not in out:
        raise ValueError(
            f'{out}: one file for {len(shares)} shares. Write {{share}} into its name.'
        )
    source, backbone = _recorded(second, first)
    encoders = [export.load_encoder(backbone, location) for location in (first, second)]
    # Under the names that files of the encoder have.
    before, after = (getattr(e, 'trunk', e).state_dict() for e in encoders)
    checkpoint, grid = read_checkpoint(source), encoders[0].grid_size
    hashes = [export.tensors_sha256(state) for state in (before, after)]
    if hashes[0] == hashes[1]:
        raise ValueError(f'{first} and {second} hold the same weights; nothing lies between them.')
    lines = []
    for share in shares:
        state = between(before, after, share)
        meta = export.encoder_metadata(checkpoint, None, backbone, state, grid, local_file(source))
        meta |= _origin(meta, first if source == second else second)
        meta['interpolated'] = {
            'files': [os.path.basename(first), os.path.basename(second)],
            'tensors_sha256': hashes,
            'share_of_the_second': share,
        }
        path = out.replace('{share}', f'{share:g}')
        export.write_encoder(path, state, meta)
        lines.append(
            f'{path}: {1 - share:g} of {first}, {share:g} of {second}, patch grid '
            f'{grid[0]}x{grid[1]}'
        )
    return lines


def between(
    first: Mapping[str, Tensor], second: Mapping[str, Tensor], share: float
) -> OrderedDict[str, Tensor]:
    """Mix two state dicts of one model; what is no floating-point number is the second's."""
    return OrderedDict(
        (k, torch.lerp(first[k], v, share) if v.is_floating_point() else v)
        for k, v in second.items()
    )


def default_name(second: str) -> str:
    """Name of the result in the current folder, if nobody gives one."""
    name = Path(second.split('#')[0].rpartition(':')[2]).stem
    return f'{name}_share-{{share}}.safetensors'


def _recorded(*sources: str) -> tuple[str, dict]:
    """The first source that records its architecture, and the config of its encoder."""
    for source in sources:
        try:
            found = export.described(encoder_config(read_checkpoint(source), None, source))
        except ValueError:  # no record: files of other projects
            continue
        return source, {**found, 'type': f'mmmask3d.{str(found["type"]).rpartition(".")[2]}'}
    raise ValueError(
        f'{" and ".join(reversed(sources))}: neither records its architecture. Convert one of them '
        'first, which does: mmmask3d convert-weights FILE encoder.safetensors'
    )


def _origin(meta: Mapping, other: str) -> dict:
    """Where the weights come from, of both encoders: their terms bind the result."""
    theirs = read_meta(read_checkpoint(other))

    def both(key: str) -> list:
        found = [*(meta.get(key) or ()), *(theirs.get(key) or ())]
        return [value for i, value in enumerate(found) if value not in found[:i]]

    licenses = [m['init_license'] for m in (meta, theirs) if m.get('init_license')]
    return {
        'data': both('data') or None,
        'initialised_from': [*both('initialised_from'), os.path.basename(other)],
        'init_license': '; '.join(dict.fromkeys(licenses)) or None,
    }
