"""The ops builder with a stand-in for mmcv's sdist: a few lines of Python instead of C++."""

import importlib.util
import io
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'tools' / 'misc' / 'build_mmcv_ops.py'
WORKING_OPS = """
def get_compiling_cuda_version():
    return 'not available'
def nms(boxes, scores, threshold):
    import torch
    return boxes, torch.tensor([0, 2])
"""
BROKEN_OPS = WORKING_OPS.replace('[0, 2]', '[0, 1, 2]')
# Stands in for `import torch`, so that probing costs no second.
FAKE_TORCH = """
class _Tensor(list):
    def tolist(self):
        return list(self)
tensor = _Tensor
__version__ = '7.8.9+cu128'
class version:
    cuda, hip = '12.8', None
class cuda:
    is_available = staticmethod(lambda: False)
"""


@pytest.fixture(scope='module')
def ops():
    spec = importlib.util.spec_from_file_location('build_mmcv_ops', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path):
    """A folder that goes before what is installed and holds a torch without weight."""
    folder = tmp_path / 'site'
    folder.mkdir()
    (folder / 'torch.py').write_text(FAKE_TORCH)
    return folder


@pytest.fixture
def environment(tmp_path, site):
    """Where the builder is to look for sdists and keep wheels."""
    (tmp_path / 'sdists').mkdir()
    keep = {key: value for key, value in os.environ.items() if not key.startswith('PIP_')}
    for name in ('CFLAGS', 'MAX_JOBS', 'FORCE_CUDA', 'PYTHONPATH'):
        keep.pop(name, None)
    return {
        **keep,
        'PIP_CONFIG_FILE': os.devnull,
        'PIP_NO_INDEX': '1',
        'PIP_FIND_LINKS': str(tmp_path / 'sdists'),
        'MMMASK3D_CACHE': str(tmp_path / 'cache'),
        'PYTHONPATH': str(site),
    }


@pytest.fixture
def sdist(tmp_path):
    """Write onedl-mmcv 99.0 whose build records its environment in ``mmcv/_ext.py``."""

    def write(ops=WORKING_OPS, with_ext=True):
        setup = (
            'import os\nfrom pathlib import Path\nfrom setuptools import setup\n'
            "record = {name: os.environ.get(name) for name in ('CFLAGS', 'MAX_JOBS')}\n"
        )
        if with_ext:
            setup += "Path('mmcv/_ext.py').write_text(f'record = {record!r}\\n')\n"
        setup += "print('  [1/2] c++ one.cpp')\nprint('  [2/2] c++ two.cpp')\n"
        setup += "setup(name='onedl-mmcv', version='99.0', packages=['mmcv', 'mmcv.ops'])\n"
        files = {
            'setup.py': setup,
            'mmcv/__init__.py': '',
            'mmcv/ops/__init__.py': ops,
            'pyproject.toml': "[build-system]\nrequires = ['setuptools']\n"
            "build-backend = 'setuptools.build_meta'\n",
            'PKG-INFO': 'Metadata-Version: 2.1\nName: onedl-mmcv\nVersion: 99.0\n',
        }
        with tarfile.open(tmp_path / 'sdists' / 'onedl_mmcv-99.0.tar.gz', 'w:gz') as archive:
            for name, text in files.items():
                entry = tarfile.TarInfo(f'onedl_mmcv-99.0/{name}')
                entry.size = len(text.encode())
                archive.addfile(entry, io.BytesIO(text.encode()))

    return write


def run(environment, *args, **extra):
    return subprocess.run(
        [sys.executable, str(SCRIPT), '--mmcv-version', '99.0', *args],
        env={**environment, **extra},
        capture_output=True,
        text=True,
    )


def key(suffix=''):
    python = f'cp{sys.version_info.major}{sys.version_info.minor}'
    return f'{python}-torch7.8.9-mmcv99.0-{platform.machine()}{suffix}'


def test_builds_once_proves_and_reuses(environment, sdist, tmp_path):
    sdist()
    done = run(environment, CFLAGS='-O1', MAX_JOBS='3')
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / 'cache' / 'wheels' / key()
    (wheel,) = folder.glob('*.whl')
    assert wheel.name.startswith('onedl_mmcv-99.0-')
    assert done.stdout.splitlines()[-1] == str(wheel)
    assert '  compiled 2 of 2' in done.stdout.splitlines()
    with zipfile.ZipFile(wheel) as archive:
        assert "'CFLAGS': '-O1 -g0', 'MAX_JOBS': '3'" in archive.read('mmcv/_ext.py').decode()
    assert not list(folder.glob('.building-*'))

    # Nothing to build from any more: only the kept wheel can serve.
    (tmp_path / 'sdists' / 'onedl_mmcv-99.0.tar.gz').unlink()
    before = wheel.stat().st_mtime_ns
    again = run(environment)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines() == [f'Using {wheel}', str(wheel)]
    assert wheel.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ('kwargs', 'says'),
    [
        (dict(with_ext=False), 'it was built without ops'),
        (dict(ops=BROKEN_OPS), 'mmcv.ops.nms kept [0, 1, 2] instead of [0, 2]'),
    ],
)
def test_a_wheel_that_does_not_work_is_an_error_and_not_kept(
    environment, sdist, tmp_path, kwargs, says
):
    sdist(**kwargs)
    done = run(environment)
    assert done.returncode == 1
    assert says in done.stderr
    folder = tmp_path / 'cache' / 'wheels' / key()
    assert sorted(path.name for path in folder.iterdir()) == ['.lock', 'build.log']


def test_a_damaged_kept_wheel_is_built_anew(environment, sdist, tmp_path):
    sdist()
    folder = tmp_path / 'cache' / 'wheels' / key()
    (folder / '.building-left-by-kill').mkdir(parents=True)
    (folder / 'onedl_mmcv-99.0-cp311-cp311-linux_x86_64.whl').write_bytes(b'cut short')
    done = run(environment)
    assert done.returncode == 0, done.stderr
    assert 'not a readable wheel' in done.stderr
    (wheel,) = folder.glob('*.whl')
    assert zipfile.is_zipfile(wheel)
    assert not list(folder.glob('.building-*'))


def test_a_build_that_fails_shows_why(environment, tmp_path):
    done = run(environment)  # there is no sdist to find
    assert done.returncode == 1
    assert 'The build failed (pip exit code 1)' in done.stderr
    assert 'onedl-mmcv==99.0' in done.stderr
    assert 'build.log' in done.stderr


def test_gpu_builds_have_a_folder_of_their_own(environment, tmp_path, site):
    done = run(environment, '--dry-run', FORCE_CUDA='1')
    assert done.returncode == 0, done.stderr
    assert f'folder: {tmp_path / "cache" / "wheels" / key("-cu128")}' in done.stdout
    assert '--no-build-isolation --no-cache-dir --no-deps' in done.stdout
    assert not (tmp_path / 'cache').exists(), 'a dry run leaves nothing'

    (site / 'torch.py').write_text(FAKE_TORCH.replace("'12.8', None", "None, '6.4.43482'"))
    done = run(environment, '--dry-run', FORCE_CUDA='1')
    assert key('-rocm6.4') in done.stdout

    (site / 'torch.py').write_text(FAKE_TORCH.replace("'12.8', None", 'None, None'))
    done = run(environment, '--dry-run', FORCE_CUDA='1')
    assert done.returncode == 1
    assert 'FORCE_CUDA=1 is set, but torch 7.8.9 is a build without CUDA' in done.stderr


def test_ops_without_gpu_code_do_not_pass_for_a_gpu_build(environment, sdist):
    sdist()
    done = run(environment, FORCE_CUDA='1')
    assert done.returncode == 1
    assert 'the ops hold no GPU code, and cu128 was asked for' in done.stderr


def test_without_torch_it_says_so(environment, site):
    (site / 'torch.py').write_text("raise ImportError('no torch here')")
    done = run(environment)
    assert done.returncode == 1
    assert 'no torch here' in done.stderr
    assert 'pip install -r requirements/torch.txt' in done.stderr


def test_a_missing_compiler_is_found_before_the_build(environment, sdist):
    sdist()
    done = run(environment, CXX='no-such-compiler -std=c++17')
    assert done.returncode == 1
    assert 'no C++ compiler (no-such-compiler)' in done.stderr


def test_the_pin_is_read_from_the_requirements(ops):
    assert ops.pinned_mmcv_version() == metadata.version('onedl-mmcv')


def test_the_documented_key(ops, monkeypatch):
    monkeypatch.setattr(ops.platform, 'machine', lambda: 'x86_64')
    monkeypatch.setattr(ops.sys, 'version_info', type('V', (), {'major': 3, 'minor': 11}))
    assert ops.wheel_key('2.9.1', '2.3.6', '') == 'cp311-torch2.9.1-mmcv2.3.6-x86_64'
    assert ops.wheel_key('2.9.1', '2.3.6', 'cu128') == 'cp311-torch2.9.1-mmcv2.3.6-x86_64-cu128'


def test_jobs_are_bounded_by_memory(ops, monkeypatch):
    monkeypatch.delenv('MAX_JOBS', raising=False)
    monkeypatch.setattr(ops.os, 'sched_getaffinity', lambda pid: range(64), raising=False)
    pages = {'SC_PAGE_SIZE': 4096, 'SC_PHYS_PAGES': 10 * 1024**3 // 4096}
    monkeypatch.setattr(ops.os, 'sysconf', pages.__getitem__)
    assert ops.build_jobs() == 5
    monkeypatch.setenv('MAX_JOBS', '7')
    assert ops.build_jobs() == 7


def test_an_interrupted_installation_is_an_error(ops, monkeypatch, tmp_path):
    """Installed but not working is an exit code, so that `make` leaves no stamp."""
    monkeypatch.setattr(ops.subprocess, 'run', lambda *a, **k: type('Done', (), {'returncode': 0}))
    monkeypatch.setattr(ops, 'probe', lambda variant: 'undefined symbol: _Z')
    with pytest.raises(ops.OpsError, match='its ops do not work: undefined symbol'):
        ops.install(tmp_path / 'some.whl', '')
