"""Converters run where neither torch nor an mm package can be imported."""

import os
import subprocess
import sys
from pathlib import Path

import mmmask3d

BLOCKED = ('torch', 'mmengine', 'mmcv', 'mmpretrain', 'mmseg', 'mmdet')
CODE = f"""
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({BLOCKED}))  # each import of them fails
import mmmask3d.conversion
from mmmask3d.conversion.command_line import run
for module in pkgutil.walk_packages(mmmask3d.conversion.__path__, 'mmmask3d.conversion.'):
    if module.name != 'mmmask3d.conversion.packing':  # reads through mmengine's file backends
        importlib.import_module(module.name)
from mmmask3d.conversion.rooms.converter import RoomsConverter
from mmmask3d.conversion.sources.folder import FolderConverter
rooms = ['--out', 'rooms', '--rooms=2', '--val-rooms=1', '--views=1', '--size', '64', '48']
print(run(RoomsConverter, [*rooms, '--workers=1']))
print(run(FolderConverter, ['rooms', 'copy', '--unit=mm', '--workers=1']))
"""


def test_converters_need_no_torch_and_no_mm_package(tmp_path):
    environment = os.environ | {'PYTHONPATH': str(Path(mmmask3d.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, '-c', CODE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line in '01'] == ['0', '0'], done.stderr
    for folder in ('rooms', 'copy'):
        assert len(list((tmp_path / folder / 'depth').iterdir())) == 2
