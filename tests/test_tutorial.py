"""The notebook of the docs runs from start to end, and shows what it says."""

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path

from PIL import Image

import mmmask3d
from mmmask3d.config_files import read_config_file

NOTEBOOK = Path(mmmask3d.__file__).parents[1] / 'docs/tutorial.ipynb'
CELLS = [
    (number, ''.join(cell['source']), cell)
    for number, cell in enumerate(json.loads(NOTEBOOK.read_text())['cells'])
    if cell['cell_type'] == 'code'
]


def run_cell(source: str, values: dict) -> object:
    """Run a cell as Jupyter would: `!` lines in processes of their own; gives the last value."""
    if source.startswith('!'):
        for line in source.replace('\\\n', '').splitlines():
            program, *arguments = shlex.split(line[1:])
            assert program == 'mmmask3d', line
            command = [sys.executable, '-m', 'mmmask3d', *arguments]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f'{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
            print(done.stdout)
        return None
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, 'cell', 'exec'), values)
    return last and eval(compile(ast.Expression(last.value), 'cell', 'eval'), values)


def test_cells_are_short_and_stored_without_outputs():
    for number, source, cell in CELLS:
        assert len(source.splitlines()) <= 20, number
        assert cell['outputs'] == [], number
        assert cell['execution_count'] is None, number


def test_it_runs_from_start_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    values: dict = {}
    shown = {number: run_cell(source, values) for number, source, _ in CELLS}
    pictures = [value for value in shown.values() if isinstance(value, Image.Image)]
    assert len(pictures) == 2
    assert all(picture.width > 3 * 192 for picture in pictures)
    assert values['frame']['depth'].shape == (144, 192)
    assert values['results']['predictions'][0]['unit'] == 'standardised'
    (figures,) = [value for value in shown.values() if isinstance(value, dict)]
    assert figures.keys() == {'depth/linear', 'depth/knn', 'normals/linear'}
    for found in figures.values():
        assert found.keys() == {'mine', 'random'}
        assert found['mine'] != found['random']
    swapped = read_config_file('swapped.py')
    assert swapped.model.backbone.init_cfg.checkpoint.endswith('encoder.pth')
    said = capsys.readouterr().out
    assert '0 errors' in said
    assert 'Mask3DPyramid' in said  # the swapped config was printed
