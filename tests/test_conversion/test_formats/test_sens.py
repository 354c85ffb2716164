"""The .sens reader against files of a writer that follows ScanNet's header, whole and damaged."""

import importlib.util
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest

from mmmask3d.conversion.formats.sens import SensReader
from mmmask3d.conversion.paths import SourceError
from mmmask3d.datasets.depth_io import FrameError

_SPEC = importlib.util.spec_from_file_location(
    'sens_writer', Path(__file__).parents[1] / 'sens_writer.py'
)
writer = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(writer)

HEADER = len(writer.sens_header(0))
FRAME = 96  # bytes of a frame before its images


def entries(path):
    """Frames before the damage, and the damage."""
    found = []
    with SensReader(path) as reader:
        try:
            found.extend(reader)
        except SourceError as error:
            return found, str(error)
    return found, None


def write(tmp_path, content, name='a.sens'):
    path = tmp_path / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize('inertial', [None, 0, 3])
def test_frames_come_back_by_value(tmp_path, inertial):
    frames = writer.make_frames(3)
    frames[1] = (*frames[1][:2], writer.NO_POSE)
    path = writer.write_sens(tmp_path / 'a.sens', frames, inertial=inertial)
    with SensReader(path) as reader:
        assert (reader.num_frames, reader.depth_scale) == (3, 1000)
        assert (reader.colour.size, reader.depth.size) == ((48, 36), (24, 18))
        np.testing.assert_array_equal(reader.colour.intrinsic, np.float32(writer.INTRINSIC))
        np.testing.assert_array_equal(reader.depth.extrinsic, np.eye(4))
        found = list(reader)
        assert [entry.number for entry in found] == [0, 1, 2]
        for entry in reversed(found):  # any order
            image, distance, pose = frames[entry.number]
            frame = reader.read(entry)
            assert frame.colour == writer.encode_colour(image)
            np.testing.assert_array_equal(reader.decode_depth(frame), distance)
            assert reader.decode_depth(frame).dtype == np.uint16
            np.testing.assert_array_equal(frame.pose, np.float32(pose))
            assert frame.times == [33_000 * entry.number, 33_000 * entry.number + 7]


# -------------------------------------------------------------------- the header


def header_with(offset, form, *values):
    content = bytearray(writer.sens_bytes(writer.make_frames(1)))
    struct.pack_into(form, content, offset, *values)
    return bytes(content)


AFTER_NAME = 12 + len(b'StructureSensor')
DAMAGED_HEADERS = {
    'another file': (b'\x89PNG\r\n\x1a\n' + bytes(400), 'starts with'),
    'version 3': (header_with(0, '<I', 3), 'version 4'),
    'a name to the end': (header_with(4, '<Q', 4000), 'truncated'),
    'colour format': (header_with(AFTER_NAME + 256, '<i', 7), 'stored as 7 and zlib_ushort'),
    'raw colour': (header_with(AFTER_NAME + 256, '<i', 0), 'stored as raw and zlib_ushort'),
    'occi': (header_with(AFTER_NAME + 260, '<i', 2), 'stored as jpeg and occi_ushort'),
    'scale of 0': (header_with(AFTER_NAME + 280, '<f', 0.0), '0.0 stored units'),
    'scale of NaN': (header_with(AFTER_NAME + 280, '<f', float('nan')), 'nan stored units'),
    'empty': (b'', 'ends at byte 0'),
}


@pytest.mark.parametrize('case', DAMAGED_HEADERS)
def test_a_damaged_header_is_refused(tmp_path, case):
    content, message = DAMAGED_HEADERS[case]
    path = write(tmp_path, content)
    with pytest.raises(SourceError, match=r'a\.sens.*' + message):
        SensReader(path)
    assert not [f for f in os.listdir('/proc/self/fd') if 'a.sens' in read_link(f)]


def read_link(descriptor):
    try:
        return os.readlink(f'/proc/self/fd/{descriptor}')
    except OSError:
        return ''


# -------------------------------------------------------------------- truncated and lying files


def test_truncated_at_every_byte(tmp_path):
    """Frames before the cut are read as ever, and the message says where it is."""
    frames = writer.make_frames(3, colour_size=(12, 9), depth_size=(8, 6))
    content = writer.sens_bytes(frames)
    ends, offset = [], HEADER
    for image, distance, _ in frames:
        offset += FRAME + len(writer.encode_colour(image)) + len(writer.encode_depth(distance))
        ends.append(offset)
    path, read = write(tmp_path, content), set()
    for length in reversed(range(len(content))):
        os.truncate(path, length)
        if length < HEADER:
            with pytest.raises(SourceError, match=r'a\.sens.*truncated'):
                SensReader(path)
            continue
        whole = [end for end in ends if end <= length]
        found, problem = entries(path)
        assert len(found) == len(whole)
        if length < ends[-1]:
            assert f'at byte {whole[-1] if whole else HEADER}' in problem
            assert 'a.sens: frame' in problem
            assert f'ends at byte {length}' in problem
        else:
            assert problem is None  # the inertial readings are not needed
        if len(found) not in read:
            read.add(len(found))
            with SensReader(path) as reader:
                for entry in found:
                    np.testing.assert_array_equal(
                        reader.decode_depth(reader.read(entry)), frames[entry.number][1]
                    )
    assert read == {3, 2, 1, 0}


def test_more_frames_than_there_are(tmp_path):
    content = bytearray(writer.sens_bytes(writer.make_frames(2), inertial=None))
    struct.pack_into('<Q', content, HEADER - 8, 3)
    found, problem = entries(write(tmp_path, bytes(content)))
    assert len(found) == 2
    assert 'frame 2 of 3' in problem
    assert f'ends at byte {len(content)}' in problem


@pytest.mark.parametrize('place', [80, 88])
def test_lengths_that_lie(tmp_path, place):
    content = bytearray(writer.sens_bytes(writer.make_frames(3)))
    with SensReader(write(tmp_path, bytes(content))) as reader:
        second = list(reader)[1]
    struct.pack_into('<Q', content, second.offset + place, 2**63)
    found, problem = entries(write(tmp_path, bytes(content)))
    assert [entry.number for entry in found] == [0]
    assert f'frame 1 of 3 at byte {second.offset} reaches to byte ' in problem


def one_frame(tmp_path, colour_data, depth_data, **header):
    frame = writer.sens_frame(colour_data, depth_data, np.eye(4))
    path = write(tmp_path, writer.sens_header(1, **header) + frame)
    reader = SensReader(path)
    return reader, reader.read(next(iter(reader)))


def test_damaged_depth(tmp_path):
    good = writer.encode_depth(writer.make_frames(1)[0][1])
    cases = {
        'damaged zlib data': good[:20] + bytes([good[20] ^ 8]) + good[21:],
        'damaged zlib data .*incomplete': good[:-3],
        '100 bytes, expected 864': zlib.compress(bytes(100)),
    }
    for message, data in cases.items():
        reader, frame = one_frame(tmp_path, b'', data)
        with reader, pytest.raises(FrameError, match=r'a\.sens, frame 0 at byte .*' + message):
            reader.decode_depth(frame)


def test_memory_does_not_grow_with_the_file(tmp_path):
    """Peak of walking over a file and reading every frame, for 5 and for 100 frames."""
    frame = writer.make_frames(1, colour_size=(160, 120), depth_size=(160, 120))
    peaks = []
    for n in (5, 100):
        path = writer.write_sens(tmp_path / f'{n}.sens', frame * n)
        for measured in (False, True):  # once for caches
            if measured:
                tracemalloc.start()
            with SensReader(path) as reader:
                for entry in reader:
                    stored = reader.read(entry)
                    reader.decode_depth(stored)
            if measured:
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
        assert path.stat().st_size > 20_000 * n
    assert peaks[1] < 1.05 * peaks[0]
    assert peaks[0] < 400_000
