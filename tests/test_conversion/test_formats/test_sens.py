"""The .sens reader against files of a writer that follows ScanNet's header, whole and damaged."""

import importlib.util
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import cv2
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


@pytest.mark.parametrize('colour', writer.COLOUR)
@pytest.mark.parametrize('depth', ['zlib_ushort', 'raw_ushort'])
@pytest.mark.parametrize('inertial', [None, 0, 3])
def test_frames_come_back_by_value(tmp_path, colour, depth, inertial):
    frames = writer.make_frames(3)
    frames[1] = (*frames[1][:2], writer.NO_POSE)
    path = writer.write_sens(
        tmp_path / 'a.sens', frames, colour=colour, depth=depth, inertial=inertial
    )
    with SensReader(path) as reader:
        header = reader.header
        assert (header.sensor, header.num_frames) == ('StructureSensor', 3)
        assert (header.colour_size, header.depth_size) == ((48, 36), (24, 18))
        assert (header.colour_format, header.depth_format) == (colour, depth)
        assert header.depth_scale == 1000
        np.testing.assert_array_equal(header.colour_intrinsic, np.float32(writer.INTRINSIC))
        np.testing.assert_array_equal(header.depth_extrinsic, np.eye(4))
        found = list(reader)
        assert [entry.number for entry in found] == [0, 1, 2]
        for entry in reversed(found):  # any order
            image, distance, pose = frames[entry.number]
            frame = reader.read(entry)
            stored = writer.encode_colour(image, colour)
            assert frame.colour == stored
            if colour == 'jpeg':
                image = cv2.imdecode(np.frombuffer(stored, np.uint8), cv2.IMREAD_COLOR)
            np.testing.assert_array_equal(reader.colour(frame), image)
            np.testing.assert_array_equal(reader.depth(frame), distance)
            assert reader.depth(frame).dtype == np.uint16
            np.testing.assert_array_equal(frame.pose, np.float32(pose))
            assert frame.colour_time == 33_000 * entry.number
            assert frame.depth_time == 33_000 * entry.number + 7


# -------------------------------------------------------------------- the header


def header_with(offset, form, *values):
    content = bytearray(writer.sens_bytes(writer.make_frames(1)))
    struct.pack_into(form, content, offset, *values)
    return bytes(content)


AFTER_NAME = 12 + len(b'StructureSensor')
DAMAGED_HEADERS = {
    'another file': (b'\x89PNG\r\n\x1a\n' + bytes(400), 'starts with'),
    'version 3': (header_with(0, '<I', 3), 'version 4'),
    'big endian': (header_with(0, '>I', 4), 'version 4'),
    'a name of 2^60 bytes': (header_with(4, '<Q', 2**60), 'byte 4'),
    'a name to the end': (header_with(4, '<Q', 4000), 'truncated'),
    'colour format': (header_with(AFTER_NAME + 256, '<i', 7), 'unknown colour format 7'),
    'colour format unknown': (header_with(AFTER_NAME + 256, '<i', -1), 'format -1'),
    'depth format': (header_with(AFTER_NAME + 260, '<i', 3), 'unknown depth format 3'),
    'occi': (header_with(AFTER_NAME + 260, '<i', 2), 'occi_ushort'),
    'width of 0': (header_with(AFTER_NAME + 264, '<I', 0), 'colour of 0x36'),
    'height of 2^31': (header_with(AFTER_NAME + 276, '<I', 2**31), 'depth of 24x2147483648'),
    'scale of 0': (header_with(AFTER_NAME + 280, '<f', 0.0), '0.0 stored units'),
    'scale of NaN': (header_with(AFTER_NAME + 280, '<f', float('nan')), 'nan stored units'),
    'negative scale': (header_with(AFTER_NAME + 280, '<f', -1.0), 'stored units'),
    'infinite scale': (header_with(AFTER_NAME + 280, '<f', float('inf')), 'stored units'),
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
    content = writer.sens_bytes(frames, depth='zlib_ushort')
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
                        reader.depth(reader.read(entry)), frames[entry.number][1]
                    )
    assert read == {3, 2, 1, 0}


def test_more_frames_than_there_are(tmp_path):
    frames = writer.make_frames(2)
    content = bytearray(writer.sens_bytes(frames, inertial=None))
    for lie in (3, 2**40, 2**64 - 1):
        struct.pack_into('<Q', content, HEADER - 8, lie)
        found, problem = entries(write(tmp_path, bytes(content)))
        assert len(found) == 2
        assert f'frame 2 of {lie}' in problem
        assert f'ends at byte {len(content)}' in problem


@pytest.mark.parametrize('place', [80, 88])
@pytest.mark.parametrize('lie', [2**20, 2**63, 2**64 - 1])
def test_lengths_that_lie(tmp_path, place, lie):
    content = bytearray(writer.sens_bytes(writer.make_frames(3)))
    with SensReader(write(tmp_path, bytes(content))) as reader:
        second = list(reader)[1]
    struct.pack_into('<Q', content, second.offset + place, lie)
    found, problem = entries(write(tmp_path, bytes(content)))
    assert [entry.number for entry in found] == [0]
    assert f'frame 1 of 3 at byte {second.offset} reaches to byte ' in problem


def one_frame(tmp_path, colour_data, depth_data, **header):
    frame = writer.sens_frame(colour_data, depth_data, np.eye(4))
    path = write(tmp_path, writer.sens_header(1, **header) + frame)
    reader = SensReader(path)
    return reader, reader.read(next(iter(reader)))


def test_damaged_depth(tmp_path):
    distance = writer.make_frames(1)[0][1]
    good = writer.encode_depth(distance)
    cases = {
        'damaged zlib data': good[:20] + bytes([good[20] ^ 8]) + good[21:],
        'before its checksum': good[:-3],
        '100 bytes, expected 864': zlib.compress(bytes(100)),
        '0 bytes, expected 864': b'',
        'more than 864 bytes, expected 864': zlib.compress(bytes(2**20)),
    }
    for message, data in cases.items():
        reader, frame = one_frame(tmp_path, b'', data)
        with reader, pytest.raises(FrameError, match=r'a\.sens, frame 0 at byte .*' + message):
            reader.depth(frame)
    reader, frame = one_frame(tmp_path, b'', distance.tobytes()[:-2], depth='raw_ushort')
    with reader, pytest.raises(FrameError, match='862 bytes, expected 864'):
        reader.depth(frame)


def test_damaged_colour(tmp_path):
    image = writer.make_frames(1)[0][0]
    jpeg = writer.encode_colour(image)
    png = writer.encode_colour(image, 'png')
    size = jpeg.index(b'\xff\xc0') + 5  # of the height in the frame header
    cases = {
        'truncated JPEG': jpeg[:-40],
        'expected a PNG or JPEG image, found 0 bytes': b'',
        'a PNG of 48x36': png,
        'a JPEG of 40x30': writer.encode_colour(image[:30, :40]),
        # 12 GB if it were believed
        'declares 65500x65500': jpeg[:size] + struct.pack('>2H', 65500, 65500) + jpeg[size + 4 :],
        'no header says its size': b'\xff\xd8\xff\xda\0\2\0\xff\xd9',
    }
    for message, data in cases.items():
        reader, frame = one_frame(tmp_path, data, b'')
        with reader, pytest.raises(FrameError, match=r'a\.sens, frame 0 at byte .*' + message):
            reader.colour(frame)
    reader, frame = one_frame(tmp_path, image.tobytes()[:-1], b'', colour='raw')
    with reader, pytest.raises(FrameError, match='5183 bytes, expected 5184'):
        reader.colour(frame)


# -------------------------------------------------------------------- any damage


EXTREMES = (0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def mutate(content, rng):
    """Flip bits, overwrite fields with extreme numbers, cut, repeat or drop a part."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        kind, place = rng.integers(6), int(rng.integers(len(data)))
        length = int(rng.integers(1, 64))
        if kind <= 1:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            value = EXTREMES[rng.integers(len(EXTREMES))]
            data[place : place + 8] = struct.pack('<Q', value)
        elif kind == 3:
            del data[place : place + length]
        elif kind == 4:
            data[place:place] = data[place : place + length]
        else:
            del data[max(1, place) :]
    return bytes(data)


def read_all(path):
    """(depth, colour) of each frame that can be read, and what could not."""
    depths, colours, messages = {}, {}, []
    try:
        with SensReader(path) as reader:
            for entry in reader:
                try:
                    frame = reader.read(entry)
                    depths[entry.number] = reader.depth(frame)
                    colours[entry.number] = reader.colour(frame)
                except (FrameError, SourceError) as error:
                    messages.append(str(error))
    except SourceError as error:
        messages.append(str(error))
    return depths, colours, messages


def test_any_damage_is_noticed_or_harmless(tmp_path):
    """500 damaged files: no other exception, no wrong depth.

    Depth has a checksum. Colour, poses and the number of frames have none, so damage inside them
    may pass, but images keep their size.
    """
    frames = writer.make_frames(3, colour_size=(12, 9), depth_size=(8, 6))
    content = writer.sens_bytes(frames)
    rng = np.random.default_rng(0)
    path = tmp_path / 'a.sens'
    noticed = 0
    for _ in range(500):
        path.write_bytes(mutate(content, rng))
        depths, colours, messages = read_all(path)
        noticed += bool(messages)
        assert all(message.startswith(str(path)) for message in messages)
        for number, depth in depths.items():
            np.testing.assert_array_equal(depth, frames[number][1])
        assert all(image.shape == (9, 12, 3) for image in colours.values())
    assert noticed > 300


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
                    reader.depth(stored)
                    reader.colour(stored)
            if measured:
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()
        assert path.stat().st_size > 20_000 * n
    assert peaks[1] < 1.05 * peaks[0]
    assert peaks[0] < 400_000
