"""The ops builder with a stand-in for mmcv's sdist: a few lines of Python instead of C++."""

import io
import os
import platform
import subprocess
import sys
import tarfile
import zipfile
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


def test_gpu_builds_have_a_folder_of_their_own_and_need_gpu_code(
    environment, sdist, tmp_path, site
):
    sdist()
    done = run(environment, FORCE_CUDA='1')
    assert done.returncode == 1
    assert 'the ops hold no GPU code' in done.stderr
    assert list((tmp_path / 'cache/wheels').iterdir()) == [
        tmp_path / 'cache/wheels' / key('-cu128')
    ]

    (site / 'torch.py').write_text(FAKE_TORCH.replace("'12.8', None", "None, '6.4.43482'"))
    sdist(WORKING_OPS.replace('not available', '6.4'))
    done = run(environment, FORCE_CUDA='1')
    assert Path(done.stdout.splitlines()[-1]).parent.name == key('-rocm6.4')

    (site / 'torch.py').write_text(FAKE_TORCH.replace("'12.8', None", 'None, None'))
    done = run(environment, FORCE_CUDA='1')
    assert done.returncode == 1
    assert 'FORCE_CUDA=1 is set, but torch 7.8.9 is a build without CUDA' in done.stderr


def test_without_torch_it_says_so(environment, site):
    (site / 'torch.py').write_text("raise ImportError('no torch here')")
    done = run(environment)
    assert done.returncode == 1
    assert 'no torch here' in done.stderr
    assert 'pip install -r requirements/torch.txt' in done.stderr


def test_the_documented_folder_and_the_pin(load_tool, monkeypatch):
    """Wheels that were built before stay valid."""
    tool = load_tool('misc/build_mmcv_ops.py')
    facts = dict(version='2.9.1', cuda='12.8', hip=None, gpu=False)
    monkeypatch.setattr(tool, 'ask', lambda code: facts)
    monkeypatch.setattr(tool.platform, 'machine', lambda: 'x86_64')
    monkeypatch.setattr(tool.sys, 'version_info', type('V', (), {'major': 3, 'minor': 11}))
    monkeypatch.setenv('MMMASK3D_CACHE', '/cache')
    name = '/cache/wheels/cp311-torch2.9.1-mmcv2.3.6-x86_64'
    assert tool.wheel_folder('2.3.6') == (Path(name), False)
    facts['gpu'] = True
    assert tool.wheel_folder('2.3.6') == (Path(f'{name}-cu128'), True)


def test_installed_but_not_working_is_an_exit_code(load_tool, monkeypatch, tmp_path, capsys):
    """So that `make` leaves no stamp."""
    tool = load_tool('misc/build_mmcv_ops.py')
    ran = []
    monkeypatch.setattr(tool, 'wheel_folder', lambda version: (tmp_path / version, False))
    monkeypatch.setattr(tool, 'find_or_build', lambda *_: tmp_path / 'x.whl')
    monkeypatch.setattr(tool.subprocess, 'run', lambda command, **_: ran.append(command))

    def broken(gpu, wheel=None):
        raise tool.OpsError('undefined symbol: _Z')

    monkeypatch.setattr(tool, 'check_ops', broken)
    assert tool.main(['--install']) == 1
    assert ran[0][1:] == [
        '-m', 'pip', 'install', '--force-reinstall', '--no-deps', str(tmp_path / 'x.whl'),
    ]  # fmt: skip
    assert 'undefined symbol' in capsys.readouterr().err
