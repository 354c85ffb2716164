"""Says what the Python environment lacks, before a traceback from deep inside does.

``python -m mmmask3d.preflight`` prints the versions and the problems; tools call
:func:`check_environment` first. Nothing but the standard library is imported, and installed
packages are read through their metadata, so it works where torch or mmengine do not; only the
question whether mmcv's compiled ops load needs torch itself.
"""

import argparse
import importlib
import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from importlib.machinery import PathFinder
from typing import NamedTuple

from mmmask3d.version import __version__

# module: (maintained distribution, the names under which upstream released it)
MM_DISTRIBUTIONS = {
    'mmengine': ('onedl-mmengine', ('mmengine', 'mmengine-lite')),
    'mmcv': ('onedl-mmcv', ('mmcv', 'mmcv-lite', 'mmcv-full')),
    'mmpretrain': ('onedl-mmpretrain', ('mmpretrain',)),
    'mmseg': ('onedl-mmsegmentation', ('mmsegmentation',)),
    'mmdet': ('onedl-mmdetection', ('mmdet',)),
}
BASE = {
    'torch': 'pip install torch==2.9.1 torchvision==0.24.1  '
    '(for a certain CUDA: choose the build at pytorch.org)',
    'torchvision': 'pip install torchvision, the release that goes with your torch',
    'numpy': 'pip install numpy==2.2.6',
    'scipy': "pip install 'scipy>=1.10'",
}
# What each use needs besides torch, torchvision, numpy, scipy, mmengine, mmcv and mmpretrain.
USES = {'pretraining': (), 'segmentation': ('mmseg',), 'detection': ('mmdet',)}

# Upstream's last releases, of 2024. A later one would be by somebody who has fixed these things.
LAST_UPSTREAM = {'mmengine': (0, 10, 7), 'mmcv': (2, 2, 0)}

MAINTAINED = "pip install 'mmmask3d[mm]'  (in a checkout: pip install -e '.[mm]')"
BUILD_OPS = (
    'in a checkout: pip install -r requirements/build.txt && '
    'python tools/misc/build_mmcv_ops.py --install'
)


class EnvironmentProblem(RuntimeError):
    """The environment cannot run what was asked for; the message says why and how to cure it."""


class Problem(NamedTuple):
    """One thing that is wrong, and the command that puts it right."""

    what: str
    cure: str

    def __str__(self) -> str:
        return f'{self.what}\n    cure: {self.cure}'


def check_environment(need_ops: bool = False, need: Sequence[str] = ()) -> None:
    """Raise if the environment cannot run mmmask3d.

    Args:
        need_ops: Also require mmcv's compiled ops, as mmdet does. This imports torch and mmcv.
        need: Modules required besides torch, torchvision, numpy, scipy, mmengine, mmcv and
            mmpretrain: 'mmseg' for segmentation, 'mmdet' for detection.

    Raises:
        EnvironmentProblem: with every problem that was found and what cures it.
    """
    problems = find_problems(need_ops, need)
    if problems:
        listed = '\n'.join(f'  - {problem}' for problem in problems)
        raise EnvironmentProblem(
            f'mmmask3d cannot run in this environment ({sys.executable}):\n{listed}\n'
            '  All versions: python -m mmmask3d.preflight. Other ways to install: '
            'docs/installation.md'
        )


def find_problems(need_ops: bool = False, need: Sequence[str] = ()) -> list[Problem]:
    """Return everything that is wrong, most fundamental first; see :func:`check_environment`."""
    problems = [
        *_missing(('mmengine', 'mmcv', 'mmpretrain', *need)),
        *_torchvision_of_another_torch(),
        *_double_installs(),
        *_versions_too_old(),
        *_transformers_beside_mmpretrain(),
    ]
    # With torch already imported it costs little to see whether ops that are there also load.
    # Ops that do not load break mmcv and mmseg in places that only expect them to be absent.
    if _has_module('mmcv') and _has_module('torch'):
        if need_ops and not _has_ops():
            problems.append(_no_ops())
        elif _has_ops() and (need_ops or 'torch' in sys.modules):
            problems += _ops_that_do_not_load()
    return problems


def _missing(modules: Sequence[str]) -> Iterator[Problem]:
    for name, cure in BASE.items():
        if not _has_module(name):
            yield Problem(f'{name} is not installed.', cure)
    if missing := [name for name in modules if not _has_module(name)]:
        names = ' '.join(MM_DISTRIBUTIONS[name][0] for name in missing)
        be = 'are' if len(missing) > 1 else 'is'
        yield Problem(f'{", ".join(missing)} {be} not installed.', f'pip install {names}')
    # mmseg imports its text tokenizer's packages whether or not text is used.
    extra = [name for name in ('ftfy', 'regex') if not _has_module(name)]
    if extra and 'mmseg' in modules and 'mmseg' not in missing:
        yield Problem(
            f'mmseg imports {" and ".join(extra)}, which upstream does not install with it.',
            f'pip install {" ".join(extra)}',
        )


def _torchvision_of_another_torch() -> Iterator[Problem]:
    """torchvision 0.(n + 15) belongs to torch 2.n; of another one no operator is registered."""
    torch, vision = _version('torch'), _version('torchvision')
    if not (torch and vision) or _number(torch)[0] != 2:
        return
    expected = (0, _number(torch)[1] + 15)
    builds = [version.partition('+')[2] for version in (torch, vision)]
    if _number(vision)[:2] != expected or (all(builds) and builds[0] != builds[1]):
        yield Problem(
            f'torchvision {vision} does not belong to torch {torch}: its import fails with '
            '"operator torchvision::nms does not exist".',
            f"pip install 'torchvision=={expected[0]}.{expected[1]}.*', from the same package "
            'index as torch',
        )


def _double_installs() -> Iterator[Problem]:
    for module in MM_DISTRIBUTIONS:
        present = [name for name, _ in _distributions(module)]
        if len(present) > 1:
            yield Problem(
                f'{" and ".join(present)} are both installed and write to the same folder, '
                f'{module}/: which files are whose is a matter of chance.',
                f'pip uninstall -y {" ".join(present)} && pip install {present[0]}',
            )


def _versions_too_old() -> Iterator[Problem]:
    """A torch before safe loading, and upstream's last releases, which need such a torch."""
    torch = _version('torch')
    if torch and _number(torch) < (2, 6):
        yield Problem(
            f'torch {torch} is too old: before 2.6, weights_only=True did not keep a checkpoint '
            'from running code (CVE-2025-32434), so mmmask3d would read no .pth file.',
            BASE['torch'],
        )
    old = [
        (name, version)
        for module, last in LAST_UPSTREAM.items()
        for name, version in _distributions(module)
        if not name.startswith('onedl') and _number(version) <= last
    ]
    if old:
        yield Problem(
            f'{" and ".join(map(" ".join, old))} do not work with torch 2.6 or newer, numpy 2 or '
            'setuptools 81.',
            f'pip uninstall -y {" ".join(name for name, _ in old)} && {MAINTAINED}',
        )


def _transformers_beside_mmpretrain() -> Iterator[Problem]:
    """mmpretrain imports its models for text where it finds transformers and pycocotools."""
    version = _version('transformers')
    if not (version and _version('pycocotools') and _has_module('mmpretrain')):
        return
    if _number(version) >= (5,):
        yield Problem(
            f'transformers {version} is too new for mmpretrain: where it finds transformers and '
            'pycocotools, its import ends in "NoneType takes no arguments".',
            'pip uninstall -y transformers; keep it in an environment of its own',
        )


def _no_ops() -> Problem:
    torch, cure = _version('torch'), BUILD_OPS
    if torch and _number(torch) >= (2, 12):
        cure = (
            f'torch {torch} is too new to build them (its headers need C++20, mmcv is built as '
            f'C++17): install torch 2.9.1 and torchvision 0.24.1, then {BUILD_OPS}'
        )
    found = ' '.join(_distributions('mmcv')[0]) if _distributions('mmcv') else 'mmcv'
    return Problem(
        f'{found} is installed without its compiled ops (there is no mmcv/_ext), and mmdet '
        'needs them. A plain pip install builds it that way, as it hides torch from the build.',
        cure,
    )


def _ops_that_do_not_load() -> Iterator[Problem]:
    try:
        importlib.import_module('torch')
        importlib.import_module('mmcv._ext')
    except Exception as error:  # whatever it is, it is what the user has to know
        told = (str(error).strip() or repr(error)).splitlines()[0]
        yield Problem(
            f"mmcv's compiled ops do not load with torch {_version('torch')} "
            f'({type(error).__name__}): {told}',
            'if the message names a missing package, install it; otherwise they were built for '
            f'another torch or CUDA: {BUILD_OPS}',
        )


def _has_module(name: str) -> bool:
    """Whether a top-level module can be imported, without importing it."""
    if name in sys.modules:
        return sys.modules[name] is not None
    return importlib.util.find_spec(name) is not None


def _has_ops() -> bool:
    """Whether mmcv holds an ``_ext``, without importing mmcv."""
    spec = importlib.util.find_spec('mmcv')
    if spec is None or spec.submodule_search_locations is None:
        return False
    return PathFinder.find_spec('mmcv._ext', list(spec.submodule_search_locations)) is not None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _number(version: str) -> tuple[int, ...]:
    """Return the release numbers of a version: (2, 9, 1) of '2.9.1+cu128' or '2.9.1rc1'."""
    found = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in found.group().split('.')) if found else (0,)


def _distributions(module: str) -> list[tuple[str, str]]:
    """Name and version of what is installed of an mm package, the maintained one first."""
    maintained, upstream = MM_DISTRIBUTIONS[module]
    found = ((name, _version(name)) for name in (maintained, *upstream))
    return [(name, version) for name, version in found if version]


def version_table() -> list[tuple[str, str]]:
    """Return (name, version with its distribution or 'not installed') of all that matters."""
    rows = [('python', f'{sys.version.split()[0]}  ({sys.executable})'), ('mmmask3d', __version__)]
    rows += [(name, _version(name) or 'not installed') for name in BASE]
    for module in MM_DISTRIBUTIONS:
        present = [f'{version}  ({name})' for name, version in _distributions(module)]
        unknown = 'of unknown version' if _has_module(module) else 'not installed'
        rows.append((module, ', '.join(present) or unknown))
    if _has_module('mmcv'):
        rows.append(('mmcv ops', 'compiled' if _has_ops() else 'none (only mmdet needs them)'))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Print versions and problems; the exit code is 1 if there are problems."""
    parser = argparse.ArgumentParser(
        prog='python -m mmmask3d.preflight', description=(__doc__ or '').splitlines()[0]
    )
    parser.add_argument(
        '--for',
        dest='uses',
        action='append',
        choices=sorted(USES),
        default=[],
        help='what is to be run; may be repeated. Default: pretraining',
    )
    args = parser.parse_args(argv)
    for name, value in version_table():
        print(f'{name:<12} {value}')
    need = [module for use in args.uses for module in USES[use]]
    problems = find_problems('detection' in args.uses, need)
    print()
    if problems:
        print(f'{len(problems)} problem{"s" if len(problems) > 1 else ""}:')
        for problem in problems:
            print(f'  - {problem}')
        return 1
    print(f'no problem found for {", ".join(dict.fromkeys(args.uses)) or "pretraining"}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
