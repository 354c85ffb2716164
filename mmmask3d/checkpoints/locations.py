"""Reads a checkpoint by its location: a path, a URL, a name in a model zoo; never by unpickling.

mmengine tries ``torch.load(weights_only=True)`` and, when that fails, unpickles the file in full,
which runs whatever code its author put there; its ``http(s)://`` loader unpickles right away.
:func:`read_checkpoint` does neither. What mmengine itself reads goes through it once
:func:`install_strict_loaders` was called.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.runner import checkpoint as mm_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from mmmask3d.checkpoints.download import download, file_sha256, split_sha256
from mmmask3d.checkpoints.files import CheckpointError, load_checkpoint_file
from mmmask3d.checkpoints.hub import hub_file

_Resolver = Callable[[str], str | os.PathLike[str]]
_RESOLVERS: dict[str, _Resolver] = {}


def register_scheme(scheme: str) -> Callable[[_Resolver], _Resolver]:
    """Register the decorated function, from a location to a local file, for locations of a scheme.

    Args:
        scheme: How the locations start, such as ``'mmmask3d://'``.
    """

    def register(resolver: _Resolver) -> _Resolver:
        _RESOLVERS[scheme] = resolver
        return resolver

    return register


def local_file(location: str | os.PathLike[str]) -> Path:
    """Local file behind a location, downloaded if need be.

    Raises:
        CheckpointError: The scheme is unknown, or its model zoo has no such name.
        DownloadError: The file could not be downloaded or has another hash.
    """
    location = os.fspath(location)
    if '://' not in location:
        return Path(location).expanduser()
    for scheme, resolver in _RESOLVERS.items():
        if location.startswith(scheme):
            return Path(resolver(location))
    raise CheckpointError(
        f'{location}: expected a local path or one of {", ".join(sorted(_RESOLVERS))}. Download '
        'the file and give its path. (Names of this zoo are known once '
        'mmmask3d.register_all_modules() was called.)'
    )


def read_checkpoint(
    location: str | os.PathLike[str], map_location: Any = 'cpu', sha256: str | None = None
) -> dict[str, Any]:
    """Read a checkpoint; no code from the file is run.

    ``meta['config']``, a text that mmengine's ``Runner.resume`` would run as Python, is left out.

    Args:
        location: Path, ``http(s)://`` URL, ``hf://owner/name[@revision][:file]``, or a name in a
            model zoo, such as ``torchvision://resnet50``. ``#sha256=<64 hexadecimal digits>`` may
            follow a URL or a hub location.
        map_location: As for ``torch.load``.
        sha256: Expected hash of the file, 64 hexadecimal digits.

    Raises:
        FileNotFoundError: There is no such file.
        UnsafeCheckpointError: The file would need full unpickling.
        CheckpointError: The file is damaged, or the location is none.
        DownloadError: See :func:`mmmask3d.checkpoints.download.download`.
    """
    if sha256 is not None:
        location = with_sha256(os.fspath(location), sha256)
    checkpoint = load_checkpoint_file(local_file(location), map_location)
    meta = checkpoint.get('meta')
    if isinstance(meta, dict) and 'config' in meta:
        print_log(
            f"{location}: ignoring meta['config'], which mmengine would run as Python code when "
            'resuming.',
            logger='current',
            level=logging.WARNING,
        )
        checkpoint['meta'] = {key: value for key, value in meta.items() if key != 'config'}
    return checkpoint


def with_sha256(location: str, sha256: str) -> str:
    """Location of a checkpoint whose hash is checked when it is read.

    A local file is checked here; a URL gets the hash as its fragment.

    Raises:
        CheckpointError: The file has another hash, or its scheme cannot be checked.
    """
    _, digits = split_sha256(f'{location.partition("#")[0]}#sha256={sha256}')
    if location.startswith(('http://', 'https://', 'hf://', 'mmmask3d://')):
        address, given = split_sha256(location)
        if given not in (None, digits):
            raise CheckpointError(f'{location}: sha256={digits} contradicts the URL.')
        return f'{address}#sha256={digits}'
    if '://' in location:
        raise CheckpointError(
            f'{location}: sha256 is checked for local files, http(s)://, hf:// and '
            'mmmask3d:// only.'
        )
    path = os.path.expanduser(location)
    if os.path.isfile(path) and (found := file_sha256(path)) != digits:
        raise CheckpointError(
            f'{location}: its sha256 is {found}, expected {digits}. The file was changed, or the '
            'hash is of another one.'
        )
    return location


# --------------------------------------------------------------------------------------------
# Schemes that mmengine knows too. It refuses a name that is none by a KeyError.

register_scheme('http://')(download)
register_scheme('https://')(download)
register_scheme('hf://')(hub_file)


@register_scheme('torchvision://')
@register_scheme('modelzoo://')
def _torchvision_file(location: str) -> Path:
    return download(_look_up(location, mm_checkpoint.get_torchvision_models()))


@register_scheme('open-mmlab://')
@register_scheme('openmmlab://')
def _openmmlab_file(location: str) -> Path:
    name = location.split('://', 1)[1]
    name = mm_checkpoint.get_deprecated_model_names().get(name, name)
    return download(_look_up(f'open-mmlab://{name}', mm_checkpoint.get_external_models()))


def _look_up(location: str, urls: dict[str, str]) -> str:
    scheme, name = location.split('://', 1)
    if name not in urls:
        raise CheckpointError(
            f'{location}: the model zoo behind {scheme}:// has no {name!r} ({len(urls)} names '
            'known). Check the name, or give a URL or a local path.'
        )
    return urls[name]


def load_from_mmmask3d(filename: str, map_location: Any = None) -> dict[str, Any]:
    """:func:`read_checkpoint` for mmengine, which logs this name without its first ten letters."""
    return read_checkpoint(filename, map_location)


def install_strict_loaders() -> None:
    """Make every checkpoint that mmengine reads in this process go through this module.

    Covers ``init_cfg=dict(type='Pretrained')``, ``load_from``, ``resume``,
    ``_load_checkpoint_with_prefix`` and ``mmengine.runner.load_checkpoint``, which all ask
    ``CheckpointLoader``. A scheme that is unknown here is refused; loaders that others registered
    are left alone. Calling it again changes nothing.
    """
    for scheme, loader in list(CheckpointLoader._schemes.items()):
        if loader.__module__.split('.')[0] == 'mmengine':
            CheckpointLoader.register_scheme(scheme, loader=load_from_mmmask3d, force=True)
