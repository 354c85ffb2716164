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
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import PathFinder

from mmmask3d.version import __version__

# module: (maintained distribution, the names under which upstream released it)
MM_DISTRIBUTIONS = {
    'mmengine': ('onedl-mmengine', ('mmengine', 'mmengine-lite')),
    'mmcv': ('onedl-mmcv', ('mmcv', 'mmcv-lite', 'mmcv-full')),
    'mmpretrain': ('onedl-mmpretrain', ('mmpretrain',)),
    'mmseg': ('onedl-mmsegmentation', ('mmsegmentation',)),
    'mmdet': ('onedl-mmdetection', ('mmdet',)),
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


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        what: What was found and what was expected.
        cure: The command, or the thing to do, that puts it right.
    """

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
    problems = _torch_problems()
    problems += _mm_presence_problems(('mmengine', 'mmcv', 'mmpretrain', *need))
    problems += _double_install_problems() + _upstream_problems() + _transformers_problems()
    if 'mmseg' in need and _has_module('mmseg'):
        problems += _mmseg_extra_problems()
    # With torch already imported it costs little to see whether ops that are there also load.
    # Ops that do not load break mmcv and mmseg in places that only expect them to be absent.
    if _has_module('mmcv') and _has_module('torch'):
        if need_ops and not _has_ops():
            problems.append(_no_ops_problem())
        elif _has_ops() and (need_ops or 'torch' in sys.modules):
            problems += _ops_loading_problems()
    return problems


def _torch_problems() -> list[Problem]:
    problems = [
        Problem(f'{name} is not installed.', cure)
        for name, cure in (
            (
                'torch',
                'pip install torch==2.9.1 torchvision==0.24.1  '
                '(for a certain CUDA: choose the build at pytorch.org)',
            ),
            ('torchvision', 'pip install torchvision, the release that goes with your torch'),
            ('numpy', 'pip install numpy==2.2.6'),
            ('scipy', "pip install 'scipy>=1.10'"),
        )
        if not _has_module(name)
    ]
    torch, vision = _version('torch'), _version('torchvision')
    if not (torch and vision):
        return problems
    torch_number, vision_number = _number(torch), _number(vision)
    # torchvision 0.(n + 15) belongs to torch 2.n. Another one's operators are not registered, and
    # its import ends in "operator torchvision::nms does not exist".
    if torch_number[0] == 2 and vision_number[:2] != (0, torch_number[1] + 15):
        expected = f'0.{torch_number[1] + 15}'
        problems.append(
            Problem(
                f'torchvision {vision} does not belong to torch {torch}, which needs torchvision '
                f'{expected}; importing it fails with "operator torchvision::nms does not exist".',
                f"pip install 'torchvision=={expected}.*'",
            )
        )
    builds = [value.partition('+')[2] for value in (torch, vision)]
    if all(builds) and builds[0] != builds[1]:
        problems.append(
            Problem(
                f'torch {torch} and torchvision {vision} are built for different devices.',
                'reinstall both from the same package index, in one call of pip',
            )
        )
    return problems


def _mm_presence_problems(modules: Sequence[str]) -> list[Problem]:
    missing = [name for name in modules if not _has_module(name)]
    if not missing:
        return []
    names = ' '.join(MM_DISTRIBUTIONS[name][0] for name in missing)
    be = 'are' if len(missing) > 1 else 'is'
    return [Problem(f'{", ".join(missing)} {be} not installed.', f'pip install {names}')]


def _double_install_problems() -> list[Problem]:
    problems = []
    for module, (maintained, upstream) in MM_DISTRIBUTIONS.items():
        present = [name for name in (maintained, *upstream) if _version(name)]
        if len(present) > 1:
            problems.append(
                Problem(
                    f'{" and ".join(present)} are both installed and write to the same folder, '
                    f'{module}/: which files are whose is a matter of chance.',
                    f'pip uninstall -y {" ".join(present)} && pip install {present[0]}',
                )
            )
    return problems


def _upstream_problems() -> list[Problem]:
    """Upstream's last releases with a torch, numpy or setuptools newer than they can bear."""
    old = []
    for module, last in LAST_UPSTREAM.items():
        for name in MM_DISTRIBUTIONS[module][1]:
            version = _version(name)
            if version and _number(version) <= last:
                old.append(f'{name} {version}')
    if not old:
        return []
    found = ' and '.join(old)
    uninstall = 'pip uninstall -y ' + ' '.join(item.split()[0] for item in old)
    replace = f'{uninstall} && {MAINTAINED}'
    problems = []
    torch, numpy = _version('torch'), _version('numpy')
    if torch and _number(torch) >= (2, 6):
        problems.append(
            Problem(
                f'torch {torch} is too new for {found}: since torch 2.6 checkpoints load with '
                'weights_only=True by default, which these releases do not expect.',
                f"{replace}; or stay with them and pip install 'torch<2.6'",
            )
        )
    if numpy and _number(numpy) >= (2,):
        problems.append(
            Problem(
                f'numpy {numpy} is too new for {found}, which were made for numpy 1.',
                f"{replace}; or stay with them and pip install 'numpy<2'",
            )
        )
    if not _has_module('pkg_resources'):
        setuptools = _version('setuptools')
        state = f'setuptools {setuptools} has dropped it' if setuptools else 'setuptools is missing'
        problems.append(
            Problem(
                f'{found} import pkg_resources, and {state}.',
                f"{replace}; or stay with them and pip install 'setuptools<81'",
            )
        )
    return problems


def _transformers_problems() -> list[Problem]:
    """mmpretrain imports its models for text where it finds transformers and pycocotools."""
    version = _version('transformers')
    if not (version and _version('pycocotools') and _has_module('mmpretrain')):
        return []
    if _number(version) < (5,):
        return []
    return [
        Problem(
            f'transformers {version} is too new for mmpretrain: where it finds transformers and '
            'pycocotools, its import ends in "NoneType takes no arguments".',
            'pip uninstall -y transformers; keep it in an environment of its own',
        )
    ]


def _mmseg_extra_problems() -> list[Problem]:
    """mmseg imports its text tokenizer's packages whether or not text is used."""
    missing = [name for name in ('ftfy', 'regex') if not _has_module(name)]
    if not missing:
        return []
    return [
        Problem(
            f'mmseg imports {" and ".join(missing)}, which upstream does not install with it.',
            f'pip install {" ".join(missing)}',
        )
    ]


def _no_ops_problem() -> Problem:
    distribution = _mmcv_distribution()
    torch = _version('torch')
    cure = BUILD_OPS
    if torch and _number(torch) >= (2, 12):
        cure = (
            f'torch {torch} is too new to build them (its headers need C++20, mmcv is built as '
            f'C++17): install torch 2.9.1 and torchvision 0.24.1, then {BUILD_OPS}'
        )
    return Problem(
        f'{distribution} is installed without its compiled ops (there is no mmcv/_ext), and mmdet '
        'needs them. A plain pip install builds it that way, as it hides torch from the build.',
        cure,
    )


def _ops_loading_problems() -> list[Problem]:
    """Import the ops, which are there, and tell the known reasons of a failure apart."""
    try:
        importlib.import_module('torch')
    except Exception as error:  # whatever it is, it is what the user has to know
        return [
            Problem(
                f'torch is installed but does not import: {_first_line(error)}',
                'pip install --force-reinstall torch torchvision, both from the same package index',
            )
        ]
    try:
        importlib.import_module('mmcv._ext')
    except Exception as error:
        return [_ops_loading_problem(error)]
    return []


def _ops_loading_problem(error: Exception) -> Problem:
    text = str(error)
    torch = _version('torch')
    ops = f"{_mmcv_distribution()}'s compiled ops"
    if 'undefined symbol' in text or 'Symbol not found' in text or 'procedure could not' in text:
        return Problem(
            f'{ops} were built for another torch than the one installed, {torch}: '
            f'{_first_line(error)}',
            f'build them for torch {torch}; {BUILD_OPS}',
        )
    if re.search(r'lib(cuda|cudart|cublas|amdhip)[^ ]*', text):
        return Problem(
            f'{ops} were built for another CUDA or ROCm than torch {torch} brings: '
            f'{_first_line(error)}',
            f'build them for torch {torch}; {BUILD_OPS}',
        )
    return Problem(
        f'{ops} do not load ({type(error).__name__}): {_first_line(error)}',
        f'if the message names a missing package, install it; otherwise build the ops again: '
        f'{BUILD_OPS}',
    )


def _mmcv_distribution() -> str:
    maintained, upstream = MM_DISTRIBUTIONS['mmcv']
    for name in (maintained, *upstream):
        version = _version(name)
        if version:
            return f'{name} {version}'
    return 'mmcv'


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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def version_table() -> list[tuple[str, str]]:
    """Return (name, version with its distribution or 'not installed') of all that matters."""
    rows = [('python', f'{sys.version.split()[0]}  ({sys.executable})'), ('mmmask3d', __version__)]
    for name in ('torch', 'torchvision', 'numpy', 'scipy'):
        rows.append((name, _version(name) or 'not installed'))
    for module, (maintained, upstream) in MM_DISTRIBUTIONS.items():
        found = [(name, _version(name)) for name in (maintained, *upstream)]
        present = [f'{version}  ({name})' for name, version in found if version]
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
