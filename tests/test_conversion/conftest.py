"""A made-up data set with its converter, and what several tests of conversions look at."""

import sys
from pathlib import Path

import pytest


@pytest.fixture
def toy(monkeypatch):
    """The module `toy_converter`, importable by worker processes too."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import toy_converter

    yield toy_converter
    sys.modules.pop('toy_converter')


def read_tree(root, state=False):
    """Content of every file below a folder by relative name; without the state of conversions."""
    root = Path(root)
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob('*'))
        if p.is_file() and (state or '.conversion' not in p.parts)
    }


@pytest.fixture(name='read_tree', scope='session')
def _read_tree():
    return read_tree
