"""The distribution holds what it should, and configs are found through ``mmmask3d::``."""

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import mmengine
import pytest
import yaml
from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from packaging.requirements import Requirement

import mmmask3d
from mmmask3d.config_scopes import register_config_scopes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(mmmask3d.__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(
    '.*', '__pycache__', 'build', 'dist', '*.egg-info', 'data', 'work_dirs', 'tests', 'docs'
)


def pins(name):
    """Return {distribution: version} of one requirements file."""
    lines = (REPO / 'requirements' / f'{name}.txt').read_text().splitlines()
    found = [re.fullmatch(r'([\w.-]+)==([^;\s]+)(;.*)?', line) for line in lines if line[:1] != '#']
    assert all(found), f'requirements/{name}.txt has a line that is no pin'
    return {match.group(1).lower(): match.group(2) for match in found}


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of the source tree, since a build writes next to what it builds."""
    folder = tmp_path_factory.mktemp('source') / 'checkout'
    shutil.copytree(REPO, folder, ignore=LEFT_OUT)
    # What must not be shipped: tests, and links that an editable install has left.
    (folder / 'tests').mkdir()
    (folder / 'tests' / 'test_not_shipped.py').write_text('')
    (folder / 'mmmask3d' / '.mim').mkdir()
    (folder / 'mmmask3d' / '.mim' / 'stale.py').write_text('')
    (folder / 'configs' / '__pycache__').mkdir()
    (folder / 'configs' / '__pycache__' / 'cached.cpython-311.pyc').write_text('')
    probe = folder / 'configs' / '_probe'
    probe.mkdir()
    (probe / 'base.py').write_text("a = dict(type='mmmask3d.X', depth=3)\nb = 1\n")
    (probe / 'child.py').write_text("_base_ = './base.py'\na = dict(depth=4)\n")
    return folder


def build(source, out, hook):
    code = f'import sys, setuptools.build_meta as back_end; back_end.{hook}(sys.argv[1])'
    done = subprocess.run(
        [sys.executable, '-c', code, str(out)], cwd=source, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


@pytest.fixture(scope='module')
def wheel(source, tmp_path_factory):
    return build(source, tmp_path_factory.mktemp('wheel'), 'build_wheel')


def test_the_wheel_holds_package_configs_tools_and_index(wheel, source):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in ('configs', 'tools'):
        for path in (source / folder).rglob('*'):
            if path.is_file() and '__pycache__' not in path.parts:
                assert f'mmmask3d/.mim/{path.relative_to(source).as_posix()}' in names
    for path in (source / 'mmmask3d').rglob('*.py'):
        if '.mim' not in path.parts:
            assert path.relative_to(source).as_posix() in names
    assert {'mmmask3d/.mim/model-index.yml', 'mmmask3d/py.typed'} <= names
    assert 'mmmask3d/conversion/sources/nyuv2_raw_classes.tsv' in names
    weights = [name for name in names if name.startswith('mmmask3d/weights/shipped/')]
    assert [name for name in weights if name.endswith('.safetensors')]
    assert 'mmmask3d/.mim/configs/_probe/child.py' in names
    assert any(name.endswith('.dist-info/licenses/LICENSE') for name in names)
    tops = {name.split('/')[0] for name in names}
    assert tops == {'mmmask3d', f'mmmask3d-{mmmask3d.__version__}.dist-info'}
    assert not [name for name in names if re.search('stale|not_shipped|__pycache__', name)]


def test_the_wheel_asks_for_nothing_that_replaces_torch_or_mmcv(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if name.endswith('METADATA'))
        text = archive.read(path).decode()
    head = text.split('\n\n')[0]
    fields = [line.split(': ', 1) for line in head.splitlines() if ': ' in line]
    required = [Requirement(value) for key, value in fields if key == 'Requires-Dist']
    always = {item.name for item in required if item.marker is None}
    assert always == {'numpy', 'pooch', 'requests', 'safetensors', 'scipy', 'tqdm'}
    in_mm = {item.name for item in required if item.marker and 'extra == "mm"' in str(item.marker)}
    assert in_mm == set(pins('mm'))
    assert dict(fields)['Version'] == mmmask3d.__version__
    assert dict(fields)['License-Expression'] == 'Apache-2.0'


def test_the_wheel_built_from_the_sdist_is_the_same(wheel, source, tmp_path):
    """What MANIFEST.in leaves out of the sdist would be missing from a wheel built from it."""
    (tmp_path / 'out').mkdir()
    sdist = build(source, tmp_path / 'out', 'build_sdist')
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / 'sdist', filter='data')
    (unpacked,) = (tmp_path / 'sdist').iterdir()
    assert not (unpacked / 'tests').exists()
    (tmp_path / 'wheel').mkdir()
    again = build(unpacked, tmp_path / 'wheel', 'build_wheel')
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        assert sorted(one.namelist()) == sorted(other.namelist())


def read_through_scope(python_path, child, cwd):
    """In a fresh process, inherit from ``mmmask3d::_probe/child.py``; returns what it prints."""
    child.write_text("_base_ = 'mmmask3d::_probe/child.py'\nb = 2\n")
    code = (
        'import sys; from mmmask3d.config_scopes import register_config_scopes;'
        'import mmmask3d; register_config_scopes(); from mmengine.config import Config;'
        'cfg = Config.fromfile(sys.argv[1]);'
        'print(mmmask3d.__file__, cfg.a.type, cfg.a.depth, cfg.b)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, str(child)],
        cwd=cwd,
        env={'PYTHONPATH': str(python_path), 'PATH': ''},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_config_inherits_from_an_installed_wheel(wheel, tmp_path):
    site = tmp_path / 'site'
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    found = read_through_scope(site, tmp_path / 'child.py', tmp_path)
    assert found == [str(site / 'mmmask3d' / '__init__.py'), 'mmmask3d.X', '4', '2']


def test_an_editable_build_links_to_the_checkout(source, tmp_path):
    """The ``.mim`` of an editable install shows an edited config at once."""
    checkout = tmp_path / 'checkout'
    shutil.copytree(source, checkout, ignore=shutil.ignore_patterns('build', '*.egg-info'))
    out = tmp_path / 'wheel'
    out.mkdir()
    build(checkout, out, 'build_editable')
    mim = checkout / 'mmmask3d' / '.mim'
    assert sorted(path.name for path in mim.iterdir()) == ['configs', 'model-index.yml', 'tools']
    assert all(path.is_symlink() for path in mim.iterdir())
    (checkout / 'configs' / '_probe' / 'base.py').write_text("a = dict(type='edited')\n")
    found = read_through_scope(checkout, tmp_path / 'child.py', tmp_path)
    assert found[1:] == ['edited', '4', '2']


def test_a_build_without_configs_is_refused(source, tmp_path):
    broken = tmp_path / 'broken'
    shutil.copytree(source, broken, ignore=shutil.ignore_patterns('configs', 'build', '*.egg-info'))
    code = 'import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])'
    done = subprocess.run(
        [sys.executable, '-c', code, str(tmp_path)], cwd=broken, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert 'configs not found in' in done.stderr


def test_mmseg_configs_can_be_inherited(tmp_path, monkeypatch):
    monkeypatch.setitem(MODULE2PACKAGE, 'mmseg', 'mmsegmentation')
    register_config_scopes()
    child = tmp_path / 'child.py'
    child.write_text("_base_ = 'mmseg::_base_/schedules/schedule_20k.py'\n")
    cfg = Config.fromfile(child)
    assert cfg.train_cfg.max_iters == 20000


def test_requirements_lie_within_the_ranges_of_pyproject():
    project = tomllib.loads((REPO / 'pyproject.toml').read_text())['project']
    extras = project['optional-dependencies']
    groups = {
        'runtime': project['dependencies'],
        'mm': extras['mm'],
        'data': extras['data'],
        'hub': extras['hub'],
        'timm': extras['timm'],
        'onnx': extras['onnx'],
        'tests': extras['tests'] + extras['dev'],
    }
    for name, ranges in groups.items():
        wanted = {item.name: item for item in map(Requirement, ranges) if item.name != 'mmmask3d'}
        pinned = pins(name)
        assert set(wanted) == set(pinned), name
        for distribution, version in pinned.items():
            assert wanted[distribution].specifier.contains(version), (distribution, version)


def test_no_distribution_is_pinned_twice():
    names = [
        'build',
        'torch',
        'mm',
        'runtime',
        'data',
        'hub',
        'timm',
        'onnx',
        'tests',
        'transformers',
        'constraints',
    ]
    seen = [distribution for name in names for distribution in pins(name)]
    assert len(seen) == len(set(seen)), sorted({item for item in seen if seen.count(item) > 1})


def test_all_third_party_imports_of_the_package_are_declared():
    """A module imported anywhere in the package comes with a pin of the stack, or with theirs."""
    brought_along = {'cv2', 'matplotlib', 'PIL', 'yaml', 'einops', 'rich', 'pycocotools', 'yapf'}
    declared = {'torch', 'torchvision', 'mmengine', 'mmcv', 'mmpretrain', 'mmseg', 'mmdet'}
    for name in ('runtime', 'hub', 'timm', 'onnx'):
        declared |= {distribution.replace('-', '_') for distribution in pins(name)}
    declared |= brought_along
    data = {name.replace('-', '_') for name in pins('data')}
    # Those are brought along by the mm packages: their own metadata must say so.
    requirements = {
        Requirement(line).name.lower()
        for name in pins('mm')
        for line in metadata.requires(name) or ()
    }
    distributions = {'cv2': 'opencv-python', 'PIL': 'pillow', 'yaml': 'pyyaml'}
    for module in brought_along:
        assert distributions.get(module, module) in requirements, module
    for path in (REPO / 'mmmask3d').rglob('*.py'):
        if '.mim' in path.relative_to(REPO).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            else:
                continue
            for module in modules:
                top = module.split('.')[0]
                known = top in declared or top in sys.stdlib_module_names or top == 'mmmask3d'
                # Reading and packing data sets may need the data extra.
                known |= {'conversion', 'datasets'} & set(path.parts) != set() and top in data
                assert known, f'{path.relative_to(REPO)} imports {module}: in no requirements file'


def test_model_index_lists_every_metafile_and_each_is_right():
    index = mmengine.load(REPO / 'model-index.yml')
    listed = index['Import']
    present = sorted(
        path.relative_to(REPO).as_posix() for path in REPO.glob('configs/**/metafile.yml')
    )
    assert sorted(listed) == present
    for name in listed:
        content = yaml.safe_load((REPO / name).read_text())
        collections = {item['Name'] for item in content.get('Collections') or []}
        for item in content.get('Collections') or []:
            assert (REPO / item['README']).is_file(), item['README']
        for model in content['Models']:
            # mmengine's lookup by name needs the suffix; see mmengine/config/utils.py.
            assert model['Config'].endswith('.py')
            assert (REPO / model['Config']).is_file(), model['Config']
            assert model['In Collection'] in collections


def test_citation_has_one_version_and_the_paper():
    citation = yaml.safe_load((REPO / 'CITATION.cff').read_text())
    assert citation['cff-version'] == '1.2.0'
    assert citation['version'] == mmmask3d.__version__
    paper = citation['preferred-citation']
    assert [author['family-names'] for author in paper['authors']] == [
        'Hou',
        'Dai',
        'He',
        'Dai',
        'Nießner',
    ]
    assert paper['identifiers'][0]['value'] == 'arXiv:2302.14746'


def test_make_has_the_targets_and_an_up_to_date_venv_calls_no_pip(tmp_path):
    """With all stamps there, ``make demo`` and ``make test`` run no installation."""
    make = shutil.which('make')
    if make is None:
        pytest.fail('make is not installed')
    shutil.copytree(REPO / 'requirements', tmp_path / 'requirements')
    for name in ('Makefile', 'requirements.txt', 'pyproject.toml'):
        shutil.copy(REPO / name, tmp_path)
    for name in ('mmmask3d/version.py', 'tools/misc/mim_build.py'):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copy(REPO / name, tmp_path / name)

    def dry_run(*targets):
        done = subprocess.run(
            [make, '-n', '--no-print-directory', *targets],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={'PATH': '/usr/local/bin:/usr/bin:/bin'},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    fresh = dry_run('test')
    stamps = re.findall(r'touch (\.venv/\.stamp-\S+)', fresh)
    kinds = [re.match(r'\.venv/\.stamp-([a-z]+)', stamp).group(1) for stamp in stamps]
    assert sorted(kinds) == ['base', 'ops', 'package', 'tests', 'venv']
    # Demo leaves out ops and test tools, and shares the rest.
    shared = re.findall(r'touch (\.venv/\.stamp-\S+)', dry_run('demo'))
    assert [stamp for stamp in stamps if stamp in shared] == shared
    assert len(shared) == 3
    order = [fresh.index(f'-r requirements/{name}.txt') for name in ('build', 'torch')]
    order += [fresh.index('onedl-mmcv=='), fresh.index('-r requirements.txt')]
    assert order == sorted(order)

    (tmp_path / '.venv').mkdir()
    for stamp in [
        item
        for kind in ('venv', 'base', 'package', 'tests', 'ops')
        for item in stamps
        if f'stamp-{kind}' in item
    ]:
        (tmp_path / stamp).touch()
    for target in ('demo', 'test', 'lint'):
        assert 'pip' not in dry_run(target)
    # A changed pin makes the base, and with it the ops, stale.
    with (tmp_path / 'requirements' / 'torch.txt').open('a') as file:
        file.write('# changed\n')
    again = dry_run('test')
    assert '-r requirements/torch.txt' in again
    assert 'build_mmcv_ops.py --install' in again


def test_workflow_hooks_and_pins_agree():
    workflow = yaml.safe_load((REPO / '.github/workflows/test.yml').read_text())
    pythons = workflow['jobs']['test']['strategy']['matrix']['python']
    text = (REPO / 'pyproject.toml').read_text()
    assert pythons == re.findall(r'Python :: (3\.\d+)"', text)
    runs = [
        step['run'] for job in workflow['jobs'].values() for step in job['steps'] if 'run' in step
    ]
    assert all(run.startswith(('make test', 'make docs')) for run in runs)
    hooks = yaml.safe_load((REPO / '.pre-commit-config.yaml').read_text())['repos']
    (ruff,) = (repo for repo in hooks if repo['repo'].endswith('ruff-pre-commit'))
    assert ruff['rev'] == f'v{pins("tests")["ruff"]}'


def test_ci_calls_make_test_and_nothing_else():
    path = REPO / '.ci' / 'run'
    assert path.stat().st_mode & 0o111
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith('#')]
    assert lines == [
        'set -euo pipefail',
        'cd "$(dirname "${BASH_SOURCE[0]}")/.."',
        'exec make test',
    ]
