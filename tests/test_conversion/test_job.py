"""Conversions end complete, whatever stops them in between."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmmask3d.conversion.job import ConversionError, JobOptions, convert
from mmmask3d.conversion.manifest import FRAMES, MANIFEST
from mmmask3d.conversion.paths import SourceError
from mmmask3d.conversion.storage import StorageError
from mmmask3d.conversion.workers import WorkerError
from mmmask3d.datasets import LoadRGBD, RGBDDataset
from mmmask3d.datasets.depth_io import decode_depth

HERE = Path(__file__).parent


def converted(toy, source, out, shift=0, **options):
    return convert(toy.ToyConverter(toy.arguments(source, shift)), out, JobOptions(**options))


@pytest.fixture
def source(toy, tmp_path):
    toy.make_source(tmp_path / 'source')
    return tmp_path / 'source'


# ---------------------------------------------------------------- what is made


def test_every_frame_is_there_by_value(toy, source, tmp_path):
    result = converted(toy, source, tmp_path / 'out')
    assert (result.made, result.problems) == (12, [])
    for scene in range(3):
        for frame in range(4):
            seed = 100 * scene + frame
            name = f'scene_{scene}/{frame:02d}'
            images = toy.frame_of(seed)
            for kind in ('depth', 'label', 'instance'):
                stored = (tmp_path / f'out/{kind}/{name}.png').read_bytes()
                np.testing.assert_array_equal(decode_depth(stored, name), images[kind])
            jpeg = (tmp_path / f'out/rgb/{name}.jpg').read_bytes()
            quality = [] if seed % 2 else [cv2.IMWRITE_JPEG_QUALITY, 95]
            assert jpeg == cv2.imencode('.jpg', images['rgb'], quality)[1].tobytes()


def test_index_files_list_the_splits(toy, source, tmp_path):
    converted(toy, source, tmp_path / 'out')
    lists = {p.stem: p.read_text().split() for p in (tmp_path / 'out/splits').iterdir()}
    assert set(lists) == {'all', 'train', 'val'}
    assert lists['val'] == [f'scene_0/{i:02d}' for i in range(4)]
    assert lists['all'] == lists['val'] + lists['train']
    frames = [json.loads(line) for line in (tmp_path / 'out' / FRAMES).read_text().splitlines()]
    assert [f['name'] for f in frames] == lists['all']
    assert [f['seed'] for f in frames] == [100 * s + f for s in range(3) for f in range(4)]


def test_the_manifest_sums_up_what_was_stored(toy, source, tmp_path):
    result = converted(toy, source, tmp_path / 'out')
    manifest = json.loads((tmp_path / 'out' / MANIFEST).read_text())
    assert manifest == json.loads(json.dumps(result.manifest))
    images = [toy.frame_of(100 * s + f) for s in range(3) for f in range(4)]
    depth = np.stack([i['depth'] for i in images])
    labels = np.stack([i['label'] for i in images])
    found = manifest['depth']['depth']
    assert manifest['frames'] == found['frames'] == 12
    assert found['invalid_share'] == pytest.approx((depth == 0).mean(), abs=1e-4)
    assert found['low'] == depth[depth > 0].min() / 1000
    assert found['high'] == depth.max() / 1000
    medians = [np.median(d[d > 0]) for d in depth]
    assert found['median'] == pytest.approx(np.median(medians) / 1000)
    shares = manifest['pixel_share']['label']
    assert list(shares) == ['unlabelled', 'wall', 'chair']
    for i, share in enumerate(shares.values()):
        assert share == pytest.approx((labels == i).mean(), abs=1e-6)
    assert manifest['splits'] == {
        'all': {'frames': 12, 'instances': 12},
        'val': {'frames': 4, 'instances': 4},
        'train': {'frames': 8, 'instances': 8},
    }


def test_the_manifest_says_how_a_config_reads_the_folder(toy, source, tmp_path):
    settings = converted(toy, source, tmp_path / 'out').manifest['rgbd_dataset']
    data = RGBDDataset(
        data_root=str(tmp_path / 'out'),
        pipeline=[LoadRGBD()],
        **{**settings, 'ann_file': 'splits/train.txt'},
    )
    assert len(data) == 8
    np.testing.assert_allclose(data[0]['depth'], toy.frame_of(100)['depth'] / 1000, rtol=1e-6)


def test_other_conventions_of_labels(toy, source, tmp_path):
    class ZeroBased(toy.ToyConverter):
        classes = {'label': ('void', 'wall', 'chair')}
        first_ids = {'label': 0}
        ignore_ids = {'label': 255}

    manifest = convert(ZeroBased(toy.arguments(source)), tmp_path / 'out').manifest
    assert list(manifest['pixel_share']['label']) == ['unlabelled', 'void', 'wall', 'chair']
    assert manifest['pixel_share']['label']['unlabelled'] == 0
    assert (manifest['first_ids'], manifest['ignore_ids']) == ({'label': 0}, {'label': 255})

    class TooFew(ZeroBased):
        classes = {'label': ('void', 'wall')}

    with pytest.raises(ConversionError, match=r'label has the ids 2, expected 255 .*or 0 to 1'):
        convert(TooFew(toy.arguments(source)), tmp_path / 'too_few')


def test_what_has_no_suffix_is_measured_and_not_stored(toy, source, tmp_path):
    class IndexOnly(toy.ToyConverter):
        suffixes = {}
        categories = {}

        def index_line(self, name, extra):
            return f'{name}.jpg\t{extra["seed"]}.png'

    manifest = convert(IndexOnly(toy.arguments(source)), tmp_path / 'out').manifest
    assert manifest['depth']['depth']['frames'] == 12
    lines = (tmp_path / 'out/splits/val.txt').read_text().splitlines()
    assert lines[:2] == ['scene_0/00.jpg\t0.png', 'scene_0/01.jpg\t1.png']
    assert not (tmp_path / 'out/rgb').exists()


def test_colour_alone_is_enough(toy, source, tmp_path):
    class ColourOnly(toy.ToyConverter):
        suffixes = {'rgb': '.jpg'}
        categories = {}
        classes = {}

        def read(self, opened, locator):
            frame = super().read(opened, locator)
            return type(frame)({'rgb': frame.images['rgb']})

    manifest = convert(ColourOnly(toy.arguments(source)), tmp_path / 'out').manifest
    assert (manifest['frames'], manifest['depth']) == (12, {})


def test_two_workers_make_the_same_files(toy, source, tmp_path, read_tree):
    (source / 'scene_1/01.txt').write_text('broken')
    options = dict(on_error='drop', size=(8, 6))
    one = converted(toy, source, tmp_path / 'one', **options)
    two = converted(toy, source, tmp_path / 'two', workers=2, **options)
    assert one == two
    assert len(read_tree(tmp_path / 'one')) == 11 * 4 + 3 + 3 + 1 + 1
    assert read_tree(tmp_path / 'one') == read_tree(tmp_path / 'two')
    lines = [(tmp_path / n / '.conversion/journal.jsonl').read_bytes() for n in ('one', 'two')]
    assert sorted(lines[0].splitlines()) == sorted(lines[1].splitlines())


# ---------------------------------------------------------------- once more


def test_nothing_is_done_twice(toy, source, tmp_path, read_tree):
    converted(toy, source, tmp_path / 'out')
    before = read_tree(tmp_path / 'out', state=True)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / 'out/rgb').rglob('*')}
    (source / 'scene_0/00.txt').write_text('broken')  # would be noticed
    assert converted(toy, source, tmp_path / 'out').made == 0
    assert read_tree(tmp_path / 'out', state=True) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times


@pytest.mark.parametrize('damage', ['altered', 'truncated', 'removed', 'a link'])
def test_an_output_file_that_changed_is_made_again(toy, source, tmp_path, read_tree, damage):
    converted(toy, source, tmp_path / 'out')
    before = read_tree(tmp_path / 'out')
    path = tmp_path / 'out/depth/scene_1/02.png'
    content = path.read_bytes()
    path.unlink()
    if damage == 'a link':
        (tmp_path / 'theirs').write_bytes(b'theirs')
        path.symlink_to(tmp_path / 'theirs')
    elif damage != 'removed':
        path.write_bytes(b'\0' + content[1:] if damage == 'altered' else content[:-1])
    assert converted(toy, source, tmp_path / 'out').made == 1
    assert read_tree(tmp_path / 'out') == before
    assert not path.is_symlink()
    if damage == 'a link':
        assert (tmp_path / 'theirs').read_bytes() == b'theirs'


def test_a_limit_takes_the_first_frames_and_is_lifted(toy, source, tmp_path, read_tree):
    (source / 'scene_2/unreadable').touch()  # beyond the limit, for any number of workers
    results = [
        converted(toy, source, tmp_path / f'limit_{workers}', limit=5, workers=workers)
        for workers in (1, 2)
    ]
    assert [r.manifest['frames'] for r in results] == [5, 5]
    assert read_tree(tmp_path / 'limit_1') == read_tree(tmp_path / 'limit_2')
    listed = (tmp_path / 'limit_1/splits/all.txt').read_text().split()
    assert listed == [*(f'scene_0/{i:02d}' for i in range(4)), 'scene_1/00']
    (source / 'scene_2/unreadable').unlink()
    assert converted(toy, source, tmp_path / 'limit_1').made == 7
    converted(toy, source, tmp_path / 'whole')
    assert read_tree(tmp_path / 'limit_1') == read_tree(tmp_path / 'whole')


# ---------------------------------------------------------------- damaged sources


def test_damage_is_named_and_the_rest_is_kept(toy, source, tmp_path, read_tree):
    (source / 'scene_0/03.txt').write_text('broken')
    (source / 'scene_1/unreadable').touch()
    message = (
        r'(?s)2 parts .*scene_1: cannot be read\n.*frame scene_0/03: .*03\.txt: broken\n7 of 8'
    )
    with pytest.raises(ConversionError, match=message):
        converted(toy, source, tmp_path / 'out')
    assert not (tmp_path / 'out' / MANIFEST).exists()
    assert not (tmp_path / 'out/splits').exists()
    with pytest.raises(ConversionError):
        converted(toy, source, tmp_path / 'out')
    result = converted(toy, source, tmp_path / 'out', on_error='drop')
    assert result.made == 0
    assert len(result.problems) == len(result.manifest['left_out']) == 2
    (source / 'scene_0/03.txt').write_text('3')
    (source / 'scene_1/unreadable').unlink()
    assert converted(toy, source, tmp_path / 'out').made == 5
    converted(toy, source, tmp_path / 'whole')
    assert read_tree(tmp_path / 'out') == read_tree(tmp_path / 'whole')


def test_a_frame_that_is_left_out_has_no_files(toy, source, tmp_path):
    """An interrupted call may have left its colour image, and then its source broke."""
    (source / 'scene_0/03.txt').write_text('broken')
    half = tmp_path / 'out/rgb/scene_0/03.jpg'
    with pytest.raises(ConversionError):
        converted(toy, source, tmp_path / 'out')
    half.write_bytes(b'left by an interrupted call')
    converted(toy, source, tmp_path / 'out', on_error='drop')
    assert not half.exists()


def test_a_frame_without_a_reading_is_damage(toy, source, tmp_path):
    class Blind(toy.ToyConverter):
        def read(self, opened, locator):
            frame = super().read(opened, locator)
            if locator.endswith('02.txt'):
                frame.images['depth'][:] = 0
            return frame

    with pytest.raises(ConversionError, match='scene_1/02: depth has no reading'):
        convert(Blind(toy.arguments(source)), tmp_path / 'out')


def test_no_frame_at_all(toy, source, tmp_path):
    for path in source.rglob('*.txt'):
        path.write_text('broken')
    with pytest.raises(ConversionError, match='0 of 12'):
        converted(toy, source, tmp_path / 'out', on_error='drop')
    shutil.rmtree(source)
    source.mkdir()
    with pytest.raises(SourceError, match='no frame of Toy'):
        converted(toy, source, tmp_path / 'empty')


def test_two_frames_of_one_name(toy, source, tmp_path):
    (source / 'scene_0/a b.txt').write_text('1')
    (source / 'scene_0/a_b.txt').write_text('2')
    with pytest.raises(SourceError, match=r"both have a frame 'scene_0/a_b'"):
        converted(toy, source, tmp_path / 'out')


@pytest.mark.parametrize('workers', [1, 2])
def test_a_programming_error_is_not_taken_for_damage(toy, source, tmp_path, workers):
    (source / 'scene_0/03.txt').write_text('bug')
    with pytest.raises(ZeroDivisionError):
        converted(toy, source, tmp_path / 'out', workers=workers, on_error='drop')


# ---------------------------------------------------------------- stopped in the middle


def forked(function):
    """Start a function in a copy of this process; returns the id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        # As in a terminal; a background job of a shell would ignore it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        function()
        code = 0
    except (StorageError, KeyboardInterrupt):
        code = 3
    finally:
        os._exit(code)


def temporary(out):
    return list((out / '.conversion/tmp').iterdir())


def test_killed_at_random_moments(toy, tmp_path, read_tree):
    """SIGKILL, thirty times; each time goes on where the last one was stopped."""
    toy.make_source(tmp_path / 'source', scenes=4, frames=40)
    converted(toy, tmp_path / 'source', tmp_path / 'whole')
    expected = read_tree(tmp_path / 'whole')
    rng = random.Random(0)
    killed_in_between = 0
    for round_ in range(5):
        out = tmp_path / f'out_{round_}'
        done = 0
        for _ in range(6):
            pid = forked(lambda out=out: converted(toy, tmp_path / 'source', out))
            target = min(done + rng.randrange(1, 20), 150)
            wait_for(lambda out=out, target=target: len(list(out.rglob('*.jpg'))) >= target)
            time.sleep(rng.uniform(0, 0.004))  # anywhere in a frame, which takes about as long
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            done = len(list(out.rglob('*.jpg')))
            killed_in_between += done < 160
            for path in out.glob('rgb/**/*.jpg'):  # complete or absent, even before a restart
                assert path.read_bytes() == expected[str(path.relative_to(out))]
        converted(toy, tmp_path / 'source', out)
        assert read_tree(out) == expected
        assert temporary(out) == []
    assert killed_in_between >= 10


def descendants(pid):
    """Ids of the processes below one, by /proc."""
    parents = {}
    for stat in Path('/proc').glob('[0-9]*/stat'):
        with contextlib.suppress(OSError):  # ended while it was listed
            fields = stat.read_text().rpartition(')')[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
    found, new = set(), {pid}
    while new := {p for p, parent in parents.items() if parent in new} - found:
        found |= new
    return found


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, 'waited in vain'
        time.sleep(0.02)


needs_proc = pytest.mark.skipif(
    not Path('/proc/self/stat').exists(), reason='looks for processes in /proc'
)


@needs_proc
def test_no_worker_survives_and_a_restart_completes(toy, tmp_path, read_tree):
    """Real command lines with two workers: Ctrl-C, then a killed parent."""
    source, out = tmp_path / 'source', tmp_path / 'out'
    toy.make_source(source, scenes=4, frames=40)
    command = [sys.executable, HERE / 'toy_converter.py', source, out, '--workers=2']
    command.append('--seconds=0.05')
    seen = 0
    for what in (signal.SIGINT, signal.SIGKILL):
        # A background job of a shell ignores Ctrl-C and hands that down; these tests send it.
        with subprocess.Popen(
            command,
            stdout=-1,
            stderr=-1,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            wait_for(lambda seen=seen: len(list(out.rglob('*.jpg'))) > seen + 8)
            below = descendants(process.pid)
            assert len(below) >= 4  # the server that starts workers, its tracker, the workers
            process.send_signal(what)
            _, text = process.communicate(timeout=60)
        wait_for(lambda below=below: not any(alive(pid) for pid in below), 20)
        if what == signal.SIGINT:
            assert process.returncode == 130, text
            assert 'interrupted; the same call goes on where this one stopped' in text
            assert 'Traceback' not in text
            assert temporary(out) == []
        else:
            assert process.returncode == -signal.SIGKILL
        seen = len(list(out.rglob('*.jpg')))
        assert seen < 160
        assert not (out / MANIFEST).exists()
    converted(toy, source, out)
    converted(toy, source, tmp_path / 'whole')
    assert read_tree(out) == read_tree(tmp_path / 'whole')
    assert temporary(out) == []


def test_a_killed_worker_is_reported(toy, source, tmp_path, monkeypatch):
    (tmp_path / 'toy_suicide.py').write_text(
        'import os, signal\nfrom toy_converter import ToyConverter\n'
        'class Suicide(ToyConverter):\n'
        '    def read(self, opened, locator):\n'
        '        os.kill(os.getpid(), signal.SIGKILL)\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import toy_suicide

    with pytest.raises(WorkerError, match='The same call goes on'):
        convert(toy_suicide.Suicide(toy.arguments(source)), tmp_path / 'out', JobOptions(workers=2))


# ---------------------------------------------------------------- no room
