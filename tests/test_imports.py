"""Imports of the package point downwards, also those inside functions; no circle closes.

The layers and the contract against circles stand in pyproject.toml; `lint-imports` reads them.
"""

from pathlib import Path

from importlinter import cli


def test_the_contracts_are_kept(monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parents[1])
    code = cli.lint_imports(no_cache=True, is_debug_mode=False)
    assert code == cli.EXIT_STATUS_SUCCESS, capsys.readouterr().out


def test_an_import_that_points_upwards_or_closes_a_circle_is_found(tmp_path, monkeypatch, capsys):
    """The contract of pyproject.toml over a package of the same layers with one bad import."""
    project = (Path(__file__).parents[1] / 'pyproject.toml').read_text()
    contract = 'root_package = "toy"\n' + project.partition('root_package = "mmmask3d"\n')[2]
    contract = contract.partition('[tool.pytest')[0].replace('mmmask3d', 'toy')
    (tmp_path / 'pyproject.toml').write_text('[tool.importlinter]\n' + contract)
    root = Path(__file__).parents[1] / 'mmmask3d'
    names = {p.stem for p in (*root.glob('*.py'), *(p.parent for p in root.glob('*/__init__.py')))}
    for name in names - {'__init__', '__main__'}:
        (tmp_path / 'toy' / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / 'toy' / name / '__init__.py').touch()
    for name in ('__init__', '__main__'):
        (tmp_path / f'toy/{name}.py').touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def check():
        return cli.lint_imports(no_cache=True), capsys.readouterr().out

    late = 'def f():\n    from toy.weights import x\n'
    for content, broken in (('', None), (late, 'toy.models -> toy.weights')):
        (tmp_path / 'toy/models/__init__.py').write_text(content)
        code, out = check()
        assert (code == cli.EXIT_STATUS_SUCCESS) == (broken is None), out
        assert broken is None or broken in out
    (tmp_path / 'toy/models/__init__.py').write_text('')
    (tmp_path / 'toy/models/a.py').write_text('import toy.models.b\n')
    (tmp_path / 'toy/models/b.py').write_text('def f():\n    import toy.models.a\n')
    code, out = check()
    assert code != cli.EXIT_STATUS_SUCCESS
    assert 'No cycles are allowed in toy.models' in out
