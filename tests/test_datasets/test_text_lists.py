"""Text lists as different systems and programs write them."""

import codecs

import pytest

from mmmask3d.datasets.text_lists import decode_text, index_fields, numbered_lines, read_lines

TEXT = 'Küche/0001\n\n  b.jpg\tc d.png  \n# 注\n'
LINES = [(1, 'Küche/0001'), (3, 'b.jpg\tc d.png'), (4, '# 注')]


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-be'])
def test_any_marked_encoding_and_end_of_line(encoding, end, tmp_path):
    mark = {'utf-16-be': codecs.BOM_UTF16_BE}.get(encoding, b'')
    content = mark + TEXT.replace('\n', end).encode(encoding)
    assert decode_text(content, 'x') == TEXT
    (tmp_path / 'list.txt').write_bytes(content)
    assert read_lines(tmp_path / 'list.txt') == LINES
    assert list(numbered_lines(memoryview(content), 'x')) == LINES


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (
            'a\nKüche/1\n'.encode('latin-1'),
            r"index\.txt: expected text.* found b'a.*xfcche/1",
        ),
        ('a\r\nKüche/1'.encode('cp1252'), r'at byte 4 \(line 2\).*iconv -f LATIN1'),
        ('Küche'.encode('utf-16-le'), 'index.txt: expected text in UTF-8'),
        ('Kueche'.encode('utf-16-le'), 'index.txt: .*found NUL characters'),
        (codecs.BOM_UTF16_LE + b'abc', r'index\.txt: '),
        (b'\x89PNG\r\n\x1a\n', r'index\.txt: .*byte 0 \(line 1\)'),
    ],
)
def test_what_is_no_text_is_named(content, message):
    with pytest.raises(KeyError, match=message):
        decode_text(content, 'index.txt', KeyError)
    with pytest.raises(ValueError, match=r'index\.txt'):
        list(numbered_lines(content, 'index.txt'))


@pytest.mark.parametrize(
    ('line', 'fields'),
    [
        ('a/1', ['a/1']),
        (' a.jpg   b.png ', ['a.jpg', 'b.png']),
        ('a b.jpg \t c d.png ', ['a b.jpg', 'c d.png']),
        ('a\u00a0b.jpg c\u202fd.png', ['a\u00a0b.jpg', 'c\u202fd.png']),
        ('  # a comment', []),
        ('', []),
    ],
)
def test_fields_of_an_index(line, fields):
    assert index_fields(line) == fields


def test_other_separators_of_unicode_end_no_line():
    name = 'a\u2028b\x85c\x0bd'
    assert list(numbered_lines(f'{name}\nb'.encode(), 'x')) == [(1, name), (2, 'b')]
