"""The model index: which models there are, their configs, and where their weights are.

It is in ``configs/**/metafile.yml``, which an installation keeps in ``mmmask3d/.mim``.
``mmmask3d://NAME`` stands for the published weights of a model wherever a checkpoint is taken, also
in ``init_cfg`` and ``load_from``.
"""

import difflib
import fnmatch
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import mmengine

from mmmask3d.checkpoints.download import download, split_sha256
from mmmask3d.checkpoints.locations import register_scheme, with_sha256

SCHEME = 'mmmask3d://'
_PACKAGE = Path(__file__).resolve().parents[1]
#: Weights that are shipped with the package, with their model cards.
SHIPPED = Path(__file__).resolve().parent / 'shipped'


class ZooError(ValueError):
    """No such model, or none with weights; the message says what there is."""


class ZooEntry(NamedTuple):
    """A model as its metafile describes it.

    Attributes:
        name: Name, that of the config.
        config: Path of the config.
        weights: Where its weights are, or None.
        tasks: Of which it has results.
    """

    name: str
    config: Path
    weights: str | None
    tasks: frozenset[str]


@lru_cache(maxsize=4)
def read_zoo(root: Path = _PACKAGE / '.mim') -> dict[str, ZooEntry]:
    """Read the model index of an installation.

    Raises:
        ZooError: There is none.
    """
    index = root / 'model-index.yml'
    if not index.is_file():
        raise ZooError(
            f'{index} is missing: the package is not installed. In a checkout: pip install -e .'
        )
    zoo: dict[str, ZooEntry] = {}
    for name in mmengine.load(index)['Import'] or []:
        for model in mmengine.load(root / name).get('Models') or []:
            results = model.get('Results') or []
            results = results if isinstance(results, list) else [results]
            tasks = frozenset(result['Task'] for result in results)
            config = root / model['Config']
            zoo[model['Name']] = ZooEntry(model['Name'], config, model.get('Weights'), tasks)
    return zoo


def list_models(
    pattern: str | None = None,
    task: str | None = None,
    pretrained: bool | None = None,
) -> list[str]:
    """Names of the models in the zoo.

    Args:
        pattern: Wildcards as in a shell; anything may follow, as in mmpretrain.
        task: Only models with results of this task.
        pretrained: Only models with weights (True) or without (False).
    """
    names = set(read_zoo())
    if pattern is not None:
        names = set(fnmatch.filter(names, f'{pattern}*'))
    zoo = read_zoo()
    if task is not None:
        names = {n for n in names if task in zoo[n].tasks}
    if pretrained is not None:
        names = {n for n in names if (zoo[n].weights is not None) == pretrained}
    return sorted(names)


def find_entry(name: str) -> ZooEntry:
    """Look a model up by name.

    Raises:
        ZooError: There is none; names similar ones.
    """
    zoo = read_zoo()
    if name not in zoo:
        close = difflib.get_close_matches(name, zoo, n=3, cutoff=0.4)
        hint = f' Did you mean {", ".join(close)}?' if close else ''
        if name.endswith(('.pth', '.safetensors')):
            hint = ' It looks like a file of weights: give the config or name of its model too.'
        raise ZooError(f'{name!r} is none of the {len(zoo)} models of the zoo.{hint}')
    return zoo[name]


@register_scheme(SCHEME)
def weights_file(location: str) -> Path:
    """Local file behind ``mmmask3d://NAME``, shipped or downloaded, its hash verified.

    Args:
        location: The name with the scheme, and ``#sha256=...`` to ask for one version.

    Raises:
        ZooError: No such model, or it has no weights.
        CheckpointError: The file has another hash than it should have.
    """
    asked, wanted = split_sha256(location)
    entry = find_entry(asked.removeprefix(SCHEME))
    if entry.weights is None:
        raise ZooError(
            f'{entry.name} has no published weights. Those with weights: '
            f'{", ".join(list_models(pretrained=True)) or "none"}. Train it with mmmask3d '
            f'train {entry.config}, and give the checkpoint.'
        )
    address, digits = split_sha256(entry.weights)
    if not address.startswith(SCHEME):
        return download(with_sha256(entry.weights, wanted) if wanted else entry.weights)
    files = [*SHIPPED.glob(f'{entry.name}-????????.safetensors')]
    if len(files) != 1:
        raise ZooError(
            f'{SHIPPED} holds {len(files)} files of {entry.name}, expected one: the installation '
            'is incomplete.'
        )
    for expected in filter(None, (digits, wanted)):
        with_sha256(str(files[0]), expected)
    return files[0]
