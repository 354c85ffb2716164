"""The preflight against made-up installations: folders with only metadata and tiny modules.

Each case runs in a process that sees the standard library, this package and the made-up
installation, nothing else (``python -S``), so a case is what a user with those versions has.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from mmmask3d import preflight

REPO = Path(preflight.__file__).parents[1]

MAINTAINED = {
    'torch': '2.9.1',
    'torchvision': '0.24.1',
    'numpy': '2.2.6',
    'scipy': '1.17.1',
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmpretrain': '1.3.6',
    'onedl-mmsegmentation': '1.4.2',
    'onedl-mmdetection': '3.5.1',
    'setuptools': '80.9.0',
    'ftfy': '6.3.1',
    'regex': '2026.1.1',
}
UPSTREAM = {
    'torch': '2.5.1',
    'torchvision': '0.20.1',
    'numpy': '1.26.4',
    'scipy': '1.15.3',
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmpretrain': '1.2.0',
    'mmsegmentation': '1.2.2',
    'mmdet': '3.3.0',
    'setuptools': '80.9.0',
    'ftfy': '6.3.1',
    'regex': '2026.1.1',
}
MODULES = {
    'onedl-mmengine': 'mmengine',
    'onedl-mmcv': 'mmcv',
    'onedl-mmpretrain': 'mmpretrain',
    'onedl-mmsegmentation': 'mmseg',
    'onedl-mmdetection': 'mmdet',
    'mmsegmentation': 'mmseg',
    'mmcv-lite': 'mmcv',
}


@pytest.fixture
def install(tmp_path):
    """Lay out distributions as folders that ``importlib`` takes for installed."""

    def lay_out(distributions, ext=None, **replaced):
        for name, version in {**distributions, **replaced}.items():
            name = name.replace('_', '-')
            if version is None:
                continue
            info = tmp_path / f'{name.replace("-", "_")}-{version}.dist-info'
            info.mkdir()
            (info / 'METADATA').write_text(
                f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n'
            )
            module = tmp_path / MODULES.get(name, name)
            module.mkdir(exist_ok=True)
            (module / '__init__.py').write_text('')
        if ext is not None:
            (tmp_path / 'mmcv' / '_ext.py').write_text(ext)
        return tmp_path

    return lay_out


def run(site, *args):
    """Run the preflight there; returns its exit code and what it printed."""
    done = subprocess.run(
        [sys.executable, '-S', '-m', 'mmmask3d.preflight', *args],
        env={'PYTHONPATH': f'{site}:{REPO}', 'PYTHONDONTWRITEBYTECODE': '1'},
        cwd=site,
        capture_output=True,
        text=True,
    )
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def everything():
    return ['--for', 'segmentation', '--for', 'detection']


def test_a_working_stack_has_no_problem(install):
    code, text = run(install(MAINTAINED, ext=''), *everything())
    assert 'no problem found for segmentation, detection' in text
    assert code == 0


def test_the_table_names_versions_and_distributions(install):
    _, text = run(install(MAINTAINED, ext=''))
    lines = text.splitlines()
    assert any(line.split() == ['mmcv', '2.3.6', '(onedl-mmcv)'] for line in lines)
    assert any(line.split() == ['mmseg', '1.4.2', '(onedl-mmsegmentation)'] for line in lines)
    assert any(line.split() == ['torch', '2.9.1'] for line in lines)


def problems(site, *args):
    """Return the lines of the one problem that is expected: what, cure."""
    code, text = run(site, *args)
    assert code == 1
    assert '\n1 problem:\n' in text, text
    what, cure = text.split('\n1 problem:\n')[1].strip().splitlines()
    assert cure.strip().startswith('cure: ')
    return what, cure


@pytest.mark.parametrize(
    ('distribution', 'module', 'args'),
    [
        ('onedl-mmengine', 'mmengine', []),
        ('onedl-mmcv', 'mmcv', []),
        ('onedl-mmpretrain', 'mmpretrain', []),
        ('onedl-mmsegmentation', 'mmseg', ['--for', 'segmentation']),
        ('onedl-mmdetection', 'mmdet', ['--for', 'detection']),
    ],
)
def test_missing_mm_package(install, distribution, module, args):
    site = install({k: v for k, v in MAINTAINED.items() if k != distribution}, ext=None)
    if module == 'mmdet':
        (site / 'mmcv' / '_ext.py').write_text('')
    what, cure = problems(site, *args)
    assert what.strip() == f'- {module} is not installed.'
    assert cure.endswith(f'pip install {distribution}')


def test_missing_mmseg_is_no_problem_for_pretraining(install):
    assert run(install(MAINTAINED, onedl_mmsegmentation=None, onedl_mmdetection=None))[0] == 0


def test_missing_torch(install):
    what, cure = problems(install(MAINTAINED, torch=None))
    assert 'torch is not installed' in what
    assert 'pip install torch==' in cure


def test_everything_missing_is_listed_at_once(tmp_path):
    code, text = run(tmp_path)
    assert code == 1
    assert '5 problems:' in text
    for name in ('torch', 'torchvision', 'numpy', 'scipy', 'mmengine, mmcv, mmpretrain'):
        assert f'- {name} ' in text


def test_upstream_with_a_torch_that_it_does_not_take(install):
    what, cure = problems(install(UPSTREAM, torch='2.6.0', torchvision='0.21.0'))
    assert 'mmengine 0.10.7 and mmcv 2.1.0 do not work with torch 2.6 or newer' in what
    assert 'pip uninstall -y mmengine mmcv && pip install' in cure
    assert 'mmmask3d[mm]' in cure


def test_upstream_with_a_torch_that_it_takes(install):
    """That torch reads no .pth safely, and the tools would start over instead of resuming."""
    code, text = run(install(UPSTREAM))
    assert code == 1
    assert '2 problems:' in text
    assert 'torch 2.5.1 is too old' in text


@pytest.mark.parametrize('version', ['2.6.0', '2.9.1'])
def test_the_maintained_stack_takes_a_new_torch(install, version):
    vision = f'0.{int(version.split(".")[1]) + 15}.0'
    site = install(MAINTAINED, torch=version, torchvision=vision, setuptools='82.0.0')
    assert run(site)[0] == 0


def test_transformers_5_beside_mmpretrain(install):
    what, cure = problems(install(MAINTAINED, transformers='5.24.0', pycocotools='2.0.11'))
    assert 'transformers 5.24.0 is too new for mmpretrain' in what
    assert 'pip uninstall -y transformers' in cure


@pytest.mark.parametrize(
    'installed', [dict(transformers='4.57.1', pycocotools='2.0.11'), dict(transformers='5.24.0')]
)
def test_transformers_that_mmpretrain_takes_or_does_not_look_for(install, installed):
    assert run(install(MAINTAINED, **installed))[0] == 0


def test_upstream_and_maintained_side_by_side(install):
    what, cure = problems(install(MAINTAINED, mmcv_lite='2.9.0'))
    assert 'onedl-mmcv and mmcv-lite are both installed' in what
    assert cure.endswith('pip uninstall -y onedl-mmcv mmcv-lite && pip install onedl-mmcv')


@pytest.mark.parametrize(
    ('torch', 'torchvision'),
    [('2.9.1', '0.23.0'), ('2.9.1+cpu', '0.25.0+cpu'), ('2.9.1+cpu', '0.24.1+cu128')],
)
def test_torch_and_torchvision_that_do_not_match(install, torch, torchvision):
    what, cure = problems(install(MAINTAINED, torch=torch, torchvision=torchvision))
    assert f'torchvision {torchvision} does not belong to torch {torch}' in what
    assert "'torchvision==0.24.*', from the same package index" in cure


@pytest.mark.parametrize('torch', ['2.6.0', '2.9.1+cu128'])
def test_torch_and_torchvision_that_match(install, torch):
    vision = f'0.{int(torch.split(".")[1]) + 15}.9'
    assert run(install(MAINTAINED, torch=torch, torchvision=vision))[0] == 0


def test_mmseg_without_its_tokenizer(install):
    what, cure = problems(install(MAINTAINED, ftfy=None), '--for', 'segmentation')
    assert 'mmseg imports ftfy' in what
    assert cure.endswith('pip install ftfy')


def test_no_ops(install):
    site = install(MAINTAINED)
    assert run(site, '--for', 'segmentation')[0] == 0
    what, cure = problems(site, '--for', 'detection')
    assert 'onedl-mmcv 2.3.6 is installed without its compiled ops' in what
    assert 'build_mmcv_ops.py --install' in cure
    assert 'too new' not in cure


def test_no_ops_and_a_torch_that_cannot_build_them(install):
    site = install(MAINTAINED, torch='2.12.0', torchvision='0.27.0')
    _, cure = problems(site, '--for', 'detection')
    assert 'torch 2.12.0 is too new to build them' in cure


@pytest.mark.parametrize(
    'message',
    [
        '/x/_ext.so: undefined symbol: _ZN3c1021throwNullDataPtrErrorEv',
        'libcudart.so.11.0: cannot open shared object file: No such file or directory',
        "No module named 'addict'",
    ],
)
def test_ops_that_do_not_load(install, message):
    site = install(MAINTAINED, ext=f'raise ImportError({message!r})')
    assert run(site)[0] == 0, 'without detection, and without torch imported, ops are not loaded'
    what, cure = problems(site, '--for', 'detection')
    assert f'do not load with torch 2.9.1 (ImportError): {message}' in what
    assert 'build_mmcv_ops.py --install' in cure


def test_ops_are_loaded_once_torch_is_imported_anyway(install):
    site = install(MAINTAINED, ext="raise ImportError('undefined symbol: _Z')")
    code = 'import torch; from mmmask3d.preflight import check_environment; check_environment()'
    done = subprocess.run(
        [sys.executable, '-S', '-c', code],
        env={'PYTHONPATH': f'{site}:{REPO}'},
        cwd=site,
        capture_output=True,
        text=True,
    )
    last = done.stderr[done.stderr.index('EnvironmentProblem: ') :]
    assert done.returncode == 1
    assert 'mmmask3d cannot run in this environment' in last
    assert 'ops do not load with torch 2.9.1 (ImportError): undefined symbol: _Z' in last


def test_torch_that_does_not_import(install):
    site = install(MAINTAINED, ext='')
    (site / 'torch' / '__init__.py').write_text("raise OSError('libtorch.so: no such file')")
    what, _ = problems(site, '--for', 'detection')
    assert 'do not load with torch 2.9.1 (OSError): libtorch.so: no such file' in what


@pytest.mark.parametrize('command', [['test', 'a.py', 'a.pth'], ['extract', 'a.pth', 'b.pth']])
def test_commands_say_what_is_missing_before_an_import_fails(command, tmp_path):
    done = subprocess.run(
        [sys.executable, '-S', '-m', 'mmmask3d', *command],
        env={'PYTHONPATH': str(REPO), 'PYTHONDONTWRITEBYTECODE': '1'},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith('error: mmmask3d cannot run in this environment')
    assert 'mmengine, mmcv, mmpretrain are not installed.' in done.stderr


def test_this_environment_is_fine_and_torch_is_not_imported():
    code = (
        'import sys; from mmmask3d.preflight import check_environment;'
        'check_environment(need=("mmseg", "mmdet"));'
        'heavy = {"torch", "mmcv", "mmengine", "numpy"} & set(sys.modules);'
        'sys.exit(f"imported: {heavy}" if heavy else 0)'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_installed_ops_load():
    """The suite runs with compiled ops (``make test``); a run without them has tested less."""
    preflight.check_environment(need_ops=True, need=('mmseg', 'mmdet'))
