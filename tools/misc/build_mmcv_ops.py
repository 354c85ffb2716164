"""Builds mmcv's compiled ops once per (Python, torch, mmcv, machine) and installs them.

A plain ``pip install onedl-mmcv`` builds a wheel without ops, since build isolation hides torch
from mmcv's setup.py, and pip's own cache then offers that wheel for every later request. So the
ops wheel is built without isolation and cache, and kept in a folder that says what it is for:
``$MMMASK3D_CACHE/wheels/cp311-torch2.9.1-mmcv2.3.6-x86_64`` (by default below
``~/.cache/mmmask3d``), with ``-cu128`` or ``-rocm6.4`` appended when the ops are built for a GPU:
where torch sees one, or where ``FORCE_CUDA=1`` asks for it.

    python tools/misc/build_mmcv_ops.py             # build, or find, the wheel; print its path
    python tools/misc/build_mmcv_ops.py --install   # and install it into this interpreter
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
import tempfile
import zipfile
from pathlib import Path

PIN = Path(__file__).resolve().parents[2] / 'requirements/mm.txt'
BYTES_PER_JOB = 2 * 1024**3  # what one translation unit of the ops needs, at most about
# Two boxes that overlap by more than the threshold and one far away: a working nms keeps the first
# and the third.
PROBE = """
import json, torch, mmcv._ext
from mmcv.ops import get_compiling_cuda_version, nms
boxes = torch.tensor([[0., 0., 10., 10.], [1., 1., 10., 10.], [50., 50., 60., 60.]])
_, keep = nms(boxes, torch.tensor([.9, .8, .7]), .5)
assert keep.tolist() == [0, 2], f'mmcv.ops.nms kept {keep.tolist()} instead of [0, 2]'
print(json.dumps({'cuda': get_compiling_cuda_version()}))
"""
ASK_TORCH = """
import json, torch
print(json.dumps(dict(version=torch.__version__.split('+')[0], cuda=torch.version.cuda,
                      hip=torch.version.hip, gpu=torch.cuda.is_available())))
"""


class OpsError(RuntimeError):
    """The ops cannot be built, or what was built does not work."""


def ask(code: str, **environment: str) -> dict:
    """Run Python code in a fresh process, in an empty folder; returns the JSON it prints."""
    with tempfile.TemporaryDirectory() as empty:  # `python -c` puts the current folder on the path
        done = subprocess.run(
            [sys.executable, '-c', code],
            capture_output=True, text=True, env={**os.environ, **environment}, cwd=empty,
        )  # fmt: skip
    if done.returncode:
        raise OpsError(done.stderr.strip() or f'exit code {done.returncode}')
    return json.loads(done.stdout.splitlines()[-1])


def wheel_folder(mmcv_version: str) -> tuple[Path, bool]:
    """Folder of the wheel for this interpreter and torch, and whether it needs GPU code."""
    try:
        torch = ask(ASK_TORCH)
    except OpsError as error:
        raise OpsError(
            f'torch does not import in {sys.executable}, and mmcv ops are built against it:\n'
            f'{error}\nInstall it first: pip install -r requirements/torch.txt'
        ) from error
    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    key = f'{python}-torch{torch["version"]}-mmcv{mmcv_version}-{platform.machine()}'
    gpu = torch['gpu'] or os.getenv('FORCE_CUDA', '0') == '1'  # as in mmcv's own setup.py
    if gpu and torch['hip']:
        key += '-rocm' + '.'.join(torch['hip'].split('.')[:2])
    elif gpu and torch['cuda']:
        key += '-cu' + torch['cuda'].replace('.', '')
    elif gpu:
        raise OpsError(
            f'FORCE_CUDA=1 is set, but torch {torch["version"]} is a build without CUDA. Install '
            'a CUDA build of torch, or unset FORCE_CUDA.'
        )
    cache = Path(os.environ.get('MMMASK3D_CACHE') or Path.home() / '.cache/mmmask3d')
    return cache / 'wheels' / key, gpu


def check_ops(gpu: bool, wheel: Path | None = None) -> None:
    """Run the ops of a wheel, or those that are installed.

    Raises:
        OpsError: They do not work, or hold no GPU code where ``gpu`` asks for it.
    """
    with tempfile.TemporaryDirectory() as folder:
        if wheel is not None:
            try:
                zipfile.ZipFile(wheel).extractall(folder)
            except zipfile.BadZipFile as error:
                raise OpsError(f'it is not a readable wheel ({error})') from error
            if not list(Path(folder).glob('mmcv/_ext.*')):
                raise OpsError('it holds no mmcv/_ext: it was built without ops')
        path = os.pathsep.join([folder, os.environ.get('PYTHONPATH', '')])
        answer = ask(PROBE, PYTHONPATH=path)
    if gpu and answer['cuda'] == 'not available':
        raise OpsError('the ops hold no GPU code, and a GPU build was asked for')


def build(mmcv_version: str, gpu: bool, folder: Path) -> Path:
    """Build the wheel and move it into ``folder`` once its ops have worked."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    jobs = str(max(1, min(os.cpu_count() or 1, memory // BYTES_PER_JOB)))
    flags = f'{os.environ.get("CFLAGS", "")} -g0'.strip()  # debug information doubles the time
    environment = {'MAX_JOBS': jobs, **os.environ, 'CFLAGS': flags}
    log = folder / 'build.log'
    print(
        f'Building mmcv {mmcv_version} with ops, {environment["MAX_JOBS"]} jobs, once for this '
        f'machine; 10 to 30 minutes on two cores. Output: {log}',
        flush=True,
    )
    for stale in folder.glob('.building-*'):  # of a run that was killed
        shutil.rmtree(stale)
    with tempfile.TemporaryDirectory(prefix='.building-', dir=folder) as out:
        command = [
            *(sys.executable, '-m', 'pip', 'wheel', '--verbose', '--no-build-isolation'),
            *('--no-cache-dir', '--no-deps', '-w', out, f'onedl-mmcv=={mmcv_version}'),
        ]
        with log.open('w') as sink:
            done = subprocess.run(command, stdout=sink, stderr=subprocess.STDOUT, env=environment)
        wheels = list(Path(out).glob('onedl_mmcv-*.whl'))
        if done.returncode or len(wheels) != 1:
            tail = '\n'.join(log.read_text(errors='replace').splitlines()[-30:])
            raise OpsError(
                f'The build failed (pip exit code {done.returncode}):\n{tail}\nAll of: {log}\n'
                'It needs a C++ compiler, python3-dev and requirements/build.txt.'
            )
        check_ops(gpu, wheels[0])
        return wheels[0].rename(folder / wheels[0].name)


def find_or_build(mmcv_version: str, gpu: bool, folder: Path) -> Path:
    """Return a working wheel from ``folder``; one build at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for wheel in folder.glob('onedl_mmcv-*.whl'):
            try:
                check_ops(gpu, wheel)
            except OpsError as error:
                print(f'Removing {wheel}: {error}', file=sys.stderr, flush=True)
                wheel.unlink()
            else:
                print(f'Using {wheel}', flush=True)
                return wheel
        return build(mmcv_version, gpu, folder)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--install', action='store_true', help='install the wheel as well')
    [pinned] = re.findall(r'^onedl-mmcv==([^\s;#]+)', PIN.read_text(), re.MULTILINE)
    parser.add_argument('--mmcv-version', default=pinned, help=f'by default {pinned}, the pin')
    args = parser.parse_args(argv)
    try:
        folder, gpu = wheel_folder(args.mmcv_version)
        wheel = find_or_build(args.mmcv_version, gpu, folder)
        print(wheel)
        if args.install:
            command = ['install', '--force-reinstall', '--no-deps', str(wheel)]
            subprocess.run([sys.executable, '-m', 'pip', *command], check=True)
            check_ops(gpu)
            print(f'mmcv {args.mmcv_version} is installed with working ops', flush=True)
    except (OpsError, subprocess.CalledProcessError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
