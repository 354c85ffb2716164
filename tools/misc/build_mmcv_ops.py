"""Builds mmcv's compiled ops once per (Python, torch, mmcv, machine) and installs them.

A plain ``pip install onedl-mmcv`` builds a wheel without ops, since build isolation hides torch
from mmcv's setup.py, and pip's own cache then offers that wheel for every later request. So the
ops wheel is built without isolation and without pip's cache, proven to work before it is kept in a
folder that says what it was built for, and proven again once it is installed.

    python tools/misc/build_mmcv_ops.py             # build, or find, the wheel; print its path
    python tools/misc/build_mmcv_ops.py --install   # and install it into this interpreter
    python tools/misc/build_mmcv_ops.py --dry-run   # only say what would be done

The folder is ``$MMMASK3D_CACHE/wheels/cp311-torch2.9.1-mmcv2.3.6-x86_64`` (default of
``MMMASK3D_CACHE``: ``~/.cache/mmmask3d``), with ``-cu128`` or ``-rocm6.4`` appended when the ops
are built for a GPU: where torch sees one, or where ``FORCE_CUDA=1`` asks for it.

Uses the standard library alone; torch is asked in a process of its own.
"""

import argparse
import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
DISTRIBUTION = 'onedl-mmcv'
# One translation unit of the ops needs up to about this much memory.
BYTES_PER_JOB = 2 * 1024**3

# Runs in the interpreter that is to use the ops. Two boxes that overlap by more than the threshold
# and one far away: a working nms keeps the first and the third.
PROBE = """
import json, torch, mmcv._ext
from mmcv.ops import get_compiling_cuda_version, nms
boxes = torch.tensor([[0., 0., 10., 10.], [1., 1., 10., 10.], [50., 50., 60., 60.]])
_, keep = nms(boxes, torch.tensor([.9, .8, .7]), .5)
assert keep.tolist() == [0, 2], f'mmcv.ops.nms kept {keep.tolist()} instead of [0, 2]'
print(json.dumps({'file': mmcv._ext.__file__, 'cuda': get_compiling_cuda_version()}))
"""


class OpsError(RuntimeError):
    """The ops cannot be built, or what was built does not work."""


def torch_facts() -> dict:
    """Ask torch for its version and for the GPU it is built for and sees.

    Returns:
        ``version`` without a local tag, ``cuda`` and ``hip`` (version strings or None) and
        ``gpu`` (whether torch sees a device).

    Raises:
        OpsError: torch is not installed or does not import.
    """
    code = (
        'import json, torch; print(json.dumps(dict(version=torch.__version__.split("+")[0], '
        'cuda=torch.version.cuda, hip=torch.version.hip, gpu=torch.cuda.is_available())))'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    if done.returncode:
        raise OpsError(
            f'torch does not import in {sys.executable}, and mmcv ops are built against it:\n'
            f'{done.stderr.strip()}\n'
            'Install it first: pip install -r requirements/torch.txt'
        )
    return json.loads(done.stdout.splitlines()[-1])


def gpu_variant(facts: dict) -> str:
    """Name the GPU part of the key: '' for CPU ops, else such as ``cu128`` or ``rocm6.4``.

    Follows the test in mmcv's own setup.py.
    """
    if facts['gpu'] or os.getenv('FORCE_CUDA', '0') == '1':
        if facts['hip']:
            return 'rocm' + '.'.join(facts['hip'].split('.')[:2])
        if facts['cuda']:
            return 'cu' + facts['cuda'].replace('.', '')
        raise OpsError(
            f'FORCE_CUDA=1 is set, but torch {facts["version"]} is a build without CUDA. '
            'Install a CUDA build of torch, or unset FORCE_CUDA.'
        )
    return ''


def wheel_key(torch_version: str, mmcv_version: str, variant: str) -> str:
    """Name the folder of one build.

    >>> wheel_key('2.9.1', '2.3.6', '')  # doctest: +SKIP
    'cp311-torch2.9.1-mmcv2.3.6-x86_64'
    """
    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    key = f'{python}-torch{torch_version}-mmcv{mmcv_version}-{platform.machine()}'
    return f'{key}-{variant}' if variant else key


def pinned_mmcv_version() -> str:
    """Read mmcv's version from requirements/mm.txt.

    Raises:
        OpsError: the file pins none.
    """
    path = REPO / 'requirements' / 'mm.txt'
    found = re.search(rf'^{DISTRIBUTION}==([^\s;#]+)', path.read_text(), re.MULTILINE)
    if found is None:
        raise OpsError(
            f'{path} has no line "{DISTRIBUTION}==<version>". Add it, or pass --mmcv-version.'
        )
    return found.group(1)


def cache_root() -> Path:
    """Return ``$MMMASK3D_CACHE``, by default ``~/.cache/mmmask3d``."""
    return Path(os.environ.get('MMMASK3D_CACHE') or Path.home() / '.cache' / 'mmmask3d')


def probe(variant: str, site: Path | None = None) -> str | None:
    """Run mmcv's ops in a fresh process.

    Args:
        variant: Result of :func:`gpu_variant`. Ops without GPU code do not pass for a GPU build.
        site: A folder with an unpacked wheel that goes before what is installed; None probes the
            installed mmcv.

    Returns:
        None if they work, else what went wrong.
    """
    env = dict(os.environ)
    if site is not None:
        env['PYTHONPATH'] = os.pathsep.join(filter(None, [str(site), env.get('PYTHONPATH')]))
    # In a folder without an mmcv of its own: `python -c` puts the current one on the path first.
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run(
            [sys.executable, '-c', PROBE], capture_output=True, text=True, env=env, cwd=empty
        )
    if done.returncode:
        return done.stderr.strip() or f'exit code {done.returncode}'
    answer = json.loads(done.stdout.splitlines()[-1])
    if site is not None and not Path(answer['file']).resolve().is_relative_to(site.resolve()):
        return f'mmcv._ext came from {answer["file"]}, so the wheel itself holds none'
    if variant and answer['cuda'] == 'not available':
        return f'the ops hold no GPU code, and {variant} was asked for'
    return None


def probe_wheel(wheel: Path, variant: str) -> str | None:
    """Unpack a wheel and run its ops; None if they work, else what went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(wheel) as archive:
                names = archive.namelist()
                if not any(re.match(r'mmcv/_ext[.]', name) for name in names):
                    return 'it holds no mmcv/_ext: it was built without ops'
                archive.extractall(folder)
        except zipfile.BadZipFile as error:
            return f'it is not a readable wheel ({error})'
        return probe(variant, Path(folder))


def build_jobs() -> int:
    """Parallel compilations: ``MAX_JOBS`` if set, else what cores and memory allow."""
    if os.environ.get('MAX_JOBS'):
        return int(os.environ['MAX_JOBS'])
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    )
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    return max(1, min(cores, memory // BYTES_PER_JOB))


def build_environment() -> dict[str, str]:
    """Return the environment of the build: no debug information, which halves the compile time."""
    cflags = f'{os.environ.get("CFLAGS", "")} -g0'.strip()
    return {**os.environ, 'CFLAGS': cflags, 'MAX_JOBS': str(build_jobs())}


def check_toolchain() -> None:
    """Look for what the build needs before spending minutes on it.

    Raises:
        OpsError: a compiler, Python's headers or a build package is missing.
    """
    problems = []
    compiler = os.environ.get('CXX', 'c++').split()[0]
    if shutil.which(compiler) is None:
        problems.append(f'no C++ compiler ({compiler}): apt-get install g++, or set CXX')
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if not header.is_file():
        problems.append(f'{header} is missing: apt-get install python3-dev')
    for name in ('setuptools', 'wheel', 'ninja', 'packaging', 'psutil'):
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            problems.append(f'{name} is missing: pip install -r requirements/build.txt')
    if problems:
        raise OpsError('mmcv ops cannot be built here:\n  ' + '\n  '.join(problems))


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two runs at once build one wheel and not two."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('w') as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'Waiting for another build in {folder}', flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def build_command(mmcv_version: str, out: Path) -> list[str]:
    """Return the pip call that builds the wheel into ``out``."""
    return [
        *(sys.executable, '-m', 'pip', 'wheel', '--verbose', '--no-build-isolation'),
        *('--no-cache-dir', '--no-deps', '-w', str(out), f'{DISTRIBUTION}=={mmcv_version}'),
    ]


def build(mmcv_version: str, variant: str, folder: Path) -> Path:
    """Build the wheel in ``folder`` and move it there once its ops have worked.

    Args:
        mmcv_version: Release to build.
        variant: Result of :func:`gpu_variant`.
        folder: The folder of this key; its lock is held.

    Returns:
        Path of the wheel.

    Raises:
        OpsError: a tool is missing, the build fails, or the wheel's ops do not work. The full
            output is in ``build.log`` in the folder.
    """
    check_toolchain()
    # Left behind by a run that was killed; nobody else builds here while the lock is held.
    for stale in folder.glob('.building-*'):
        shutil.rmtree(stale)
    log = folder / 'build.log'
    with tempfile.TemporaryDirectory(prefix='.building-', dir=folder) as temporary:
        out = Path(temporary)
        environment = build_environment()
        print(
            f'Building mmcv {mmcv_version} with ops, {environment["MAX_JOBS"]} jobs, once for '
            f'this machine; 10 to 30 minutes on two cores. Output: {log}',
            flush=True,
        )
        with log.open('w') as sink:
            process = subprocess.Popen(
                build_command(mmcv_version, out),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors='replace',
                env=environment,
            )
            try:
                for line in process.stdout:
                    sink.write(line)
                    step = re.match(r'\s*\[(\d+)/(\d+)\]', line)
                    if step:
                        print(f'  compiled {step.group(1)} of {step.group(2)}', flush=True)
                returncode = process.wait()
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        if returncode:
            tail = '\n'.join(log.read_text().splitlines()[-30:])
            raise OpsError(f'The build failed (pip exit code {returncode}):\n{tail}\nAll of: {log}')
        wheels = list(out.glob(f'{DISTRIBUTION.replace("-", "_")}-*.whl'))
        if len(wheels) != 1:
            raise OpsError(f'pip left {len(wheels)} wheels in {out}, expected one; see {log}')
        trouble = probe_wheel(wheels[0], variant)
        if trouble:
            raise OpsError(f'The wheel that was built does not work: {trouble}\nSee {log}')
        target = folder / wheels[0].name
        os.replace(wheels[0], target)
    return target


def find_or_build(mmcv_version: str, variant: str, folder: Path) -> Path:
    """Return a working wheel from ``folder``, built first if there is none.

    A wheel there that no longer works (a torch of the same version but another build, a damaged
    file) is named, removed and built anew.
    """
    with locked(folder):
        for wheel in sorted(folder.glob(f'{DISTRIBUTION.replace("-", "_")}-*.whl')):
            trouble = probe_wheel(wheel, variant)
            if trouble is None:
                print(f'Using {wheel}', flush=True)
                return wheel
            print(f'Removing {wheel}: {trouble}', file=sys.stderr, flush=True)
            wheel.unlink()
        return build(mmcv_version, variant, folder)


def install(wheel: Path, variant: str) -> None:
    """Install the wheel over whatever mmcv is there and run its ops.

    Raises:
        OpsError: pip fails, or the installed ops do not work.
    """
    command = [sys.executable, '-m', 'pip', 'install', '--force-reinstall', '--no-deps', str(wheel)]
    returncode = subprocess.run(command).returncode
    if returncode:
        raise OpsError(f'pip exit code {returncode} from: {" ".join(command)}')
    trouble = probe(variant)
    if trouble:
        raise OpsError(f'{wheel} is installed, but its ops do not work: {trouble}')


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--install', action='store_true', help='install the wheel as well')
    parser.add_argument('--dry-run', action='store_true', help='only say what would be done')
    parser.add_argument(
        '--mmcv-version', help='release to build; default: the one in requirements/mm.txt'
    )
    args = parser.parse_args(argv)
    try:
        mmcv_version = args.mmcv_version or pinned_mmcv_version()
        facts = torch_facts()
        variant = gpu_variant(facts)
        folder = cache_root() / 'wheels' / wheel_key(facts['version'], mmcv_version, variant)
        if args.dry_run:
            wheels = sorted(folder.glob(f'{DISTRIBUTION.replace("-", "_")}-*.whl'))
            print(f'folder: {folder}')
            print(f'wheel:  {wheels[0].name if wheels else "none, would be built:"}')
            if not wheels:
                environment = build_environment()
                print(f'  CFLAGS="{environment["CFLAGS"]}" MAX_JOBS={environment["MAX_JOBS"]} \\')
                print('  ' + ' '.join(build_command(mmcv_version, folder / '.building-XXXX')))
            return 0
        wheel = find_or_build(mmcv_version, variant, folder)
        if args.install:
            install(wheel, variant)
            print(f'mmcv {mmcv_version} is installed with working ops', flush=True)
        else:
            print(wheel)
    except OpsError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
