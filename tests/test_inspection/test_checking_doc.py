"""docs/checking_data.md names every finding, and none that is gone."""

import ast
import re
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
    found |= {'duplicate-depth', 'duplicate-colour'}
    for code in found:
        assert f'`{code}`' in DOC, code
    tables = DOC.split('### Errors')[1].split('### Notes')[0]
    rows = re.findall(r'^\| (`.*?`) \|', tables, re.M)
    source = ''.join(p.read_text() for p in Path(mmmask3d.inspection.__file__).parent.glob('*.py'))
    for code in re.findall(r'`([^`]+)`', ' '.join(rows)):
        assert f"'{code}'" in source, code
