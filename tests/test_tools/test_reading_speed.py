"""What the benchmark of reading runs, counts and reports."""

import re

import pytest


@pytest.fixture
def tool(load_tool):
    return load_tool('benchmarks/reading_speed.py')


def test_config_and_packed_side_by_side(tool, tiny_config, tmp_path, capsys):
    pytest.importorskip('lmdb')
    from mmmask3d.conversion.packing import pack

    pack(tiny_config.parent / 'frames', tmp_path / 'frames.lmdb')
    options = ['--frames=3', '--passes=2', f'--packed={tmp_path}/frames.lmdb']
    assert tool.main([str(tiny_config), *options]) == 0
    output = capsys.readouterr().out
    assert '3 frames, the first 48x32' in output
    for name in ('decoding alone', 'pipeline', 'pipeline from LMDB'):
        assert re.search(rf'^\| {name} \| \d+\.\d+ \(', output, re.MULTILINE)


def test_packed_config_changes_backend_args_alone(tool, tmp_path):
    source = dict(type='RGBDDataset', data_root='a', pipeline=[dict(type='LoadRGBD')])
    config = dict(type='ConcatDataset', datasets=[source, dict(source, data_root='a')])
    arguments = dict(backend='packed_lmdb', db_path='a.lmdb', data_root='a')
    load = dict(type='LoadRGBD', backend_args=arguments)
    expected = dict(source, backend_args=arguments, pipeline=[load])
    assert tool.packed_config(config, tmp_path.__class__('a.lmdb')) == dict(
        type='ConcatDataset', datasets=[expected, expected]
    )
    assert 'backend_args' not in source
    config['datasets'][1]['data_root'] = 'b'
    with pytest.raises(ValueError, match=r"needs one data_root, found \['a', 'b'\]"):
        tool.packed_config(config, tmp_path)


def test_variants_take_turns_and_the_first_pass_is_dropped(tool):
    calls = []
    variants = {name: lambda n, name=name: calls.append((name, n)) for name in 'abc'}
    found = tool.measure(variants, frames=10, passes=2)
    assert {name: len(passes) for name, passes in found.items()} == dict(a=2, b=2, c=2)
    assert ''.join(name for name, _ in calls) == 'abcbcacab'
    assert [number for _, number in calls] == [0] * 3 + [1] * 3 + [2] * 3


def test_ratios_are_formed_within_a_pass(tool):
    found = {tool.DECODING: [1.0, 3.0, 2.0], tool.PIPELINE: [2.0, 4.0, 8.0]}
    lines = tool.table(found).splitlines()
    assert lines[3] == ('| pipeline | 4000.000 (2000.000 to 8000.000) | 0 | 0.50 (0.25 to 0.75) |')


def test_files_that_opencv_cannot_decode(tool, tmp_path):
    (tmp_path / 'a.npy').write_bytes(b'\x93NUMPY')
    with pytest.raises(ValueError, match='OpenCV cannot decode'):
        tool.decode([(str(tmp_path / 'a.npy'), str(tmp_path / 'a.npy'))])
