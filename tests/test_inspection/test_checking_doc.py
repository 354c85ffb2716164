"""docs/checking_data.md names every finding."""

import ast
from pathlib import Path

import mmmask3d.inspection
from mmmask3d.inspection import file_rules

REPO = Path(mmmask3d.inspection.__file__).parents[2]
DOC = (REPO / 'docs/checking_data.md').read_text(encoding='utf-8')


def codes():
    """First arguments of all calls that add findings."""
    found = set(file_rules._PER_FILE)
    for path in Path(mmmask3d.inspection.__file__).parent.glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ('add', 'add_frames')
                and getattr(node.func.value, 'id', '') == 'found'
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(node.args[0].value)
    return found


def test_every_finding_is_listed():
    found = codes()
    assert len(found) > 25
    for code in found | {'duplicate-depth', 'duplicate-colour'}:
        assert f'`{code}`' in DOC, code
