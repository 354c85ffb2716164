"""Hands the one ``masking`` of a config, and the encoder's patch size, to every pipeline.

A config says ``masking = dict(rgb_ratio=..., depth_ratio=..., strategy=...)`` once; a step
``dict(type='DepthAwareMasking')`` takes from there what it does not say itself. ``--cfg-options``
change a config after its file is read, so the numbers are handed over after that:

- :func:`resolve_masking` writes them into a config, for everything that builds from one;
- :func:`hand_masking_to` gives them to data sets that are built already, for mmengine's runner.
"""

import difflib
import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from mmengine.logging import print_log

from mmmask3d.datasets.transforms.masking import MASKING_OPTIONS, DepthAwareMasking

_LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def masking_defaults(config: Mapping, model: Any = None) -> dict[str, Any]:
    """What a config says once for all its masks: ``masking``, and the encoder's ``patch_size``.

    Args:
        config: The config.
        model: What was built from it. Without one ``patch_size`` is absent where
            ``model.backbone`` of the config does not give it.

    Raises:
        ValueError: ``masking`` is no dict, or has a key or a value that there is not.
    """
    masking = config.get('masking')
    masking = {} if masking is None else masking
    where = getattr(config, 'filename', None) or 'the config'
    if not isinstance(masking, Mapping):
        raise ValueError(
            f'{where}: masking is {masking!r}; expected a dict of {", ".join(MASKING_OPTIONS)}.'
        )
    for key, value in masking.items():
        if key not in MASKING_OPTIONS:
            near = difflib.get_close_matches(str(key), MASKING_OPTIONS, 1)
            cure = f' Did you mean {near[0]}?' if near else ''
            if key == 'patch_size':
                cure = " The patch size of the masks is the encoder's: model.backbone.patch_size."
            raise ValueError(
                f'{where}: masking.{key}={value!r}: DepthAwareMasking takes '
                f'{", ".join(MASKING_OPTIONS)} from there.{cure}'
            )
    try:
        DepthAwareMasking(**masking)
    except ValueError as error:
        raise ValueError(f'{where}: masking={dict(masking)}: {error}') from error
    backbone = (config.get('model') or {}).get('backbone') or {}
    patch_size = (backbone.get('module') or backbone).get('patch_size')  # inside a LoRAEncoder
    if model is not None:
        patch_size = getattr(getattr(model, 'backbone', None), 'patch_size', patch_size)
    return dict(masking, patch_size=patch_size) if isinstance(patch_size, int) else dict(masking)


def resolve_masking(config: Any, asked: Collection[str] = ()) -> bool:
    """Write ``masking`` and the encoder's patch size into every masking step of a config.

    They stand there as ``defaults``, below what the step says itself, and replace those of an
    earlier call. So a config that a run has written out can be changed by ``masking`` again.

    Args:
        config: The config; changed in place.
        asked: Keys of ``masking`` that somebody set for this run, and expects to have an effect.

    Returns:
        Whether there is such a step.

    Raises:
        ValueError: ``masking`` is wrong, see :func:`masking_defaults`; no pipeline takes it, or
            takes an option that is asked for; or a step says another patch size than the encoder
            has.
    """
    defaults = masking_defaults(config)
    where = getattr(config, 'filename', None) or 'the config'
    steps = {
        place: step for name in _LOADERS for place, step in masking_steps(config.get(name), name)
    }
    if config.get('masking') is not None and not steps:
        raise ValueError(
            f'{where}: masking={dict(config["masking"])} has no effect: no pipeline of '
            f"{', '.join(_LOADERS)} has a step dict(type='DepthAwareMasking'). Add it before "
            'PackRGBDInputs, or remove masking.'
        )
    for place, step in steps.items():
        _check_patch_size(f'{where}: {place}.patch_size', step.get('patch_size'), defaults)
        step['defaults'] = dict(defaults)
    for key in sorted(asked):
        deaf = {place: step[key] for place, step in steps.items() if step.get(key) is not None}
        said = ', '.join(f'{place}.{key}={value!r}' for place, value in deaf.items())
        if not deaf:
            continue
        everywhere = len(deaf) == len(steps)
        text = (
            f'masking.{key}={defaults[key]!r} '
            f'{"has no effect" if everywhere else "does not reach every pipeline"}: {where} says '
            f'{said}, which goes first. Remove {key} there, or change it there.'
        )
        if everywhere:
            raise ValueError(text)
        print_log(text, 'current', logging.WARNING)
    return bool(steps)


def hand_masking_to(dataset: Any, defaults: Mapping[str, Any]) -> None:
    """Give defaults to the masking steps of a data set that is built.

    Args:
        dataset: The data set, also a wrapper such as ``ConcatDataset``; or a single step.
        defaults: Of :func:`masking_defaults`.

    Raises:
        ValueError: A step says another patch size than the encoder has.
    """
    for step in _built_steps(dataset):
        _check_patch_size(f'{step}: patch_size', step.own.get('patch_size'), defaults)
        step.inherit(defaults)


def is_masking(step: Any) -> bool:
    """Whether an entry of a pipeline is the config of a :class:`DepthAwareMasking`."""
    if not isinstance(step, Mapping):
        return False
    kind = step.get('type')
    return kind is DepthAwareMasking or str(kind).split('.')[-1] == DepthAwareMasking.__name__


def _check_patch_size(place: str, said: int | None, defaults: Mapping[str, Any]) -> None:
    encoder = defaults.get('patch_size')
    if None not in (said, encoder) and said != encoder:
        raise ValueError(
            f'{place}={said} contradicts model.backbone.patch_size={encoder}: masks are drawn for '
            "the encoder's patches. Leave patch_size of DepthAwareMasking out."
        )


def masking_steps(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """(dotted place, step) of every masking step below a value of a config."""
    if is_masking(value):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from masking_steps(inner, f'{place}.{key}')
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from masking_steps(inner, f'{place}.{index}')


def _built_steps(holder: Any) -> Iterator[DepthAwareMasking]:
    """The masking steps of a data set, of its wrappers, and of transforms that hold others."""
    if isinstance(holder, DepthAwareMasking):
        yield holder
    elif isinstance(holder, list | tuple):
        for part in holder:
            yield from _built_steps(part)
    else:
        for name in ('dataset', 'datasets', 'pipeline', 'transforms'):
            yield from _built_steps(getattr(holder, name, ()))
