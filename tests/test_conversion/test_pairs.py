"""Which files belong together."""

import argparse
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmmask3d.conversion.converter import FrameRef
from mmmask3d.conversion.pairs import PairFinder, Pattern, natural_order
from mmmask3d.conversion.paths import SourceError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def finder(source, rgb='rgb/**.jpg', depth='depth/**.png', pairs=None, out='nowhere', **options):
    defaults = dict(confidence=None, min_confidence=None, max_difference=None)
    given = dict(source=source, out=source / out, rgb=rgb, depth=depth, pairs=pairs)
    return PairFinder(argparse.Namespace(**given, **defaults | options))


def pair(name, *files):
    return FrameRef(name, files)


@pytest.mark.parametrize(
    ('pattern', 'path', 'name'),
    [
        ('rgb/**.jpg', 'rgb/a/b/0001.jpg', 'a/b/0001'),
        ('rgb/**/*.jpg', 'rgb/a/b/0001.jpg', 'a/b/0001'),
        ('rgb/**/*.jpg', 'rgb/0001.jpg', '0001'),
        ('rgb/*.jpg', 'rgb/0001.jpg', '0001'),
        ('rgb/*.jpg', 'rgb/a/0001.jpg', None),
        ('rgb/*.jpg', 'rgb/0001xjpg', None),
        ('**/color/*.jpg', 'color/7.jpg', '7'),
        ('**/color/*.jpg', 'scene/1/color/7.jpg', 'scene/1/7'),
        ('*/img_*.png', 'scene/img_007.png', 'scene/007'),
        ('frame-*.color.png', 'frame-000001.color.png', '000001'),
        ('frame-*.color.png', 'frame-000001.depth.png', None),
        ('rgb/*.jpg', 'rgb/a\nb.jpg', 'a\nb'),
    ],
)
def test_what_the_stars_stand_for_is_the_name(pattern, path, name):
    assert Pattern(pattern, '--rgb').frame(path) == name


@pytest.mark.parametrize(
    'pattern',
    ['/data/*.jpg', '../*.jpg', 'a//*.jpg', './*.jpg', 'a\\*.jpg', 'a/b.jpg', 'a/*', 'a/*.*', '']
    + ['*a*b*c*d*e.jpg'],
)
def test_patterns_that_cannot_be_meant(pattern):
    with pytest.raises(SourceError, match=r'--rgb .*: expected'):
        Pattern(pattern, '--rgb')


def test_files_of_one_name_are_a_pair(tmp_path):
    touch(tmp_path, 's1/color/2.jpg', 's1/color/10.jpg', 's1/depth/2.png', 's1/depth/10.png')
    touch(tmp_path, 's2/color/1.jpg', 's2/depth/1.png', 's2/pose/1.txt', '.hidden/color/1.jpg')
    found = finder(tmp_path, '*/color/*.jpg', '**/depth/*.png').find()
    assert found.problems == []
    assert found.frames == [
        pair('s1/2', 's1/color/2.jpg', 's1/depth/2.png'),
        pair('s1/10', 's1/color/10.jpg', 's1/depth/10.png'),
        pair('s2/1', 's2/color/1.jpg', 's2/depth/1.png'),
    ]


def test_names_with_blanks_become_safe(tmp_path):
    touch(tmp_path, 'rgb/living room/1, left.jpg', 'depth/living room/1, left.png')
    (found,) = finder(tmp_path).find().frames
    assert found.name == 'living_room/1_left'
    assert found.locator[0] == 'rgb/living room/1, left.jpg'


def test_files_without_partner_are_problems(tmp_path):
    touch(tmp_path, 'rgb/a.jpg', 'depth/a.png', *(f'rgb/{i}.jpg' for i in range(5)))
    touch(tmp_path, 'depth/z.png', 'rgb/bad\x01name.jpg', 'depth/bad\x01name.png')
    found = finder(tmp_path).find()
    assert [ref.name for ref in found.frames] == ['a']
    problems = '\n'.join(found.problems)
    assert (
        "5 colour files have no partner of the same name in --depth 'depth/**.png': "
        'rgb/0.jpg, rgb/1.jpg, rgb/2.jpg, ...' in problems
    )
    assert '1 depth files have no partner' in problems
    assert 'cannot name a frame' in problems


def test_nothing_that_matches(tmp_path):
    touch(tmp_path, 'rgb/a.png', 'rgb/b.png', 'rgb/c.txt', 'depth/a.png')
    with pytest.raises(
        SourceError, match=r"rgb: no file matches --rgb 'rgb/\*\*\.jpg'; found: 2 .png"
    ):
        finder(tmp_path).find()
    with pytest.raises(SourceError, match='found: no file'):
        finder(tmp_path, rgb='nowhere/*.jpg').find()
    with pytest.raises(SourceError, match=r'no pair of files\. 1 colour files have no partner'):
        finder(tmp_path, rgb='rgb/*.txt', depth='depth/*.png').find()
    with pytest.raises(SourceError, match='expected a folder, found nothing'):
        finder(tmp_path / 'nowhere')
    with pytest.raises(SourceError, match='expected a folder, found a file'):
        finder(tmp_path / 'rgb/a.png')


def test_two_files_of_one_name(tmp_path):
    touch(tmp_path, '1_.jpg', '_1.jpg', 'depth/1.png')
    with pytest.raises(SourceError, match=r"gives two files the name '1'"):
        finder(tmp_path, '*_*.jpg').find()


def test_suffixes_in_any_case_and_names_in_any_unicode_form(tmp_path):
    nfd, nfc = (unicodedata.normalize(form, 'Küche') for form in ('NFD', 'NFC'))
    touch(tmp_path, 'x/color/1.JPG', 'x/depth/1.Png', f'{nfd}/color/2.jpg', f'{nfc}/depth/2.png')
    found = finder(tmp_path, '*/color/*.jpg', '*/depth/*.PNG').find()
    assert found.problems == []
    assert found.frames == [
        pair(f'{nfc}/2', f'{nfd}/color/2.jpg', f'{nfc}/depth/2.png'),
        pair('x/1', 'x/color/1.JPG', 'x/depth/1.Png'),
    ]
    (named,) = finder(tmp_path, f'{nfc}/color/*.jpg', f'{nfd}/depth/*.png').find().frames
    assert named.locator[0] == f'{nfd}/color/2.jpg'
    (tmp_path / 'list.txt').write_bytes(f'{nfc}/color/2.jpg {nfd}/depth/2.png\r\n'.encode('utf-16'))
    (found,) = finder(tmp_path, pairs=tmp_path / 'list.txt').find().frames
    assert found == pair(f'{nfc}/color/2', f'{nfd}/color/2.jpg', f'{nfc}/depth/2.png')


def test_pictures_that_match_but_for_their_suffix_are_counted(tmp_path):
    touch(tmp_path, 'rgb/1.jpg', 'rgb/2.JPEG', 'rgb/3.txt', 'depth/1.png', 'depth/2.npy')
    touch(tmp_path, 'other/1.bmp')
    assert sorted(finder(tmp_path).left_over()) == [
        '1 files are left out, which --depth matches but for their suffix: depth/2.npy',
        '1 files are left out, which --rgb matches but for their suffix: rgb/2.JPEG',
    ]
    touch(tmp_path, 'one/1.jpg', 'one/1.png')
    assert finder(tmp_path, 'one/*.jpg', 'one/*.png').left_over() == []


def test_the_output_inside_the_source_is_passed_over(tmp_path):
    touch(tmp_path, 'rgb/1.jpg', 'depth/1.png', 'out/rgb/1.jpg', 'out/depth/1.png')
    found = finder(tmp_path, '**/rgb/*.jpg', '**/depth/*.png', out='out').find()
    assert [ref.locator[0] for ref in found.frames] == ['rgb/1.jpg']


def test_a_list_names_pairs(tmp_path):
    (tmp_path / 'list.txt').write_text(
        '# colour depth\n\nrgb/1.30.jpg depth/1.31.png\na b/2.JPEG\td/../depth/2.npy\n'
    )
    found = finder(tmp_path, pairs=tmp_path / 'list.txt').find()
    assert found.frames == [
        pair('a_b/2', 'a b/2.JPEG', 'depth/2.npy'),
        pair('rgb/1.30', 'rgb/1.30.jpg', 'depth/1.31.png'),
    ]


@pytest.mark.parametrize(
    ('line', 'message'),
    [
        ('a.jpg', r'list\.txt:2: expected a colour file, a depth file, found 1 fields'),
        ('a.jpg b.png c.png', 'found 3 fields'),
        ('../a.jpg b.png', r"list\.txt:2: names the file '\.\./a\.jpg', which cannot lie inside"),
        ('a.jpg /etc/passwd', 'cannot lie inside'),
        ('a.jpg b\\c.png', 'cannot lie inside'),
        ('ok.jpg b.png', r"list\.txt:2: names a second frame 'ok'"),
        ('.a.jpg b.png', 'cannot name a frame'),
        ('a\udcff.jpg b.png', r'list\.txt: expected text in UTF-8, .*line 2'),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, message):
    text = f'ok.jpg ok.png\n{line}\n'
    (tmp_path / 'list.txt').write_bytes(text.encode(errors='surrogateescape'))
    with pytest.raises(SourceError, match=message):
        finder(tmp_path, pairs=tmp_path / 'list.txt').find()


def test_a_list_that_is_empty_or_missing(tmp_path):
    (tmp_path / 'list.txt').write_text('# nothing\n')
    with pytest.raises(SourceError, match='names no pair'):
        finder(tmp_path, pairs=tmp_path / 'list.txt').find()
    with pytest.raises(SourceError, match='cannot be read'):
        finder(tmp_path, pairs=tmp_path / 'none.txt').find()


# ---------------------------------------------------------------- confidence, and pairs by time


def test_a_map_has_the_name_of_depth(tmp_path):
    touch(
        tmp_path,
        *(f'{kind}/{i}.{s}' for i in (1, 2) for kind, s in (('rgb', 'jpg'), ('depth', 'png'))),
    )
    touch(tmp_path, 'sure/c_1.png', 'sure/c_3.png')
    with_maps = finder(tmp_path, confidence='sure/c_*.png', min_confidence=1.0)
    found = with_maps.find()
    assert found.frames == [pair('1', 'rgb/1.jpg', 'depth/1.png', 'sure/c_1.png')]
    (problem,) = found.problems
    assert problem.startswith('depth/2.png: --confidence matches no map of this name')
    assert with_maps.options()['confidence'] == 'sure/c_*.png'
    assert [len(ref.locator) for ref in finder(tmp_path).find().frames] == [2, 2]


def test_a_list_names_maps_as_third_field(tmp_path):
    path = tmp_path / 'list.txt'
    path.write_text('a.jpg b.png c.png\n')
    found = finder(tmp_path, pairs=path, min_confidence=1.0).find()
    assert found.frames == [pair('a', 'a.jpg', 'b.png', 'c.png')]
    path.write_text('a.jpg b.png\n')
    with pytest.raises(SourceError, match='a depth file, a confidence map, found 2 fields'):
        finder(tmp_path, pairs=path, min_confidence=1.0).find()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(confidence='c/*.png'), 'give both'),
        (dict(min_confidence=1.0), 'give both'),
        (dict(pairs='list.txt', confidence='c/*.png', min_confidence=1.0), 'no --confidence'),
        (dict(pairs='list.txt', max_difference=1.0), 'no --max-difference'),
        (dict(confidence='c.png', min_confidence=1.0), "--confidence 'c.png': expected a pattern"),
    ],
)
def test_options_that_belong_together(tmp_path, options, message):
    with pytest.raises(SourceError, match=message):
        finder(tmp_path, **options)


def test_pairs_by_time(tmp_path):
    """Colour at twice the rate, depth a little late; each file in one pair, the closest."""
    touch(tmp_path, *(f'rgb/run_{t}.jpg' for t in ('9.90', '10.00', '10.05', '10.10', '10.15')))
    touch(tmp_path, *(f'depth/run_{t}.png' for t in ('10.01', '10.11', '12.00')))
    touch(tmp_path, *(f'sure/run_{t}.png' for t in ('10.01', '10.11')))
    touch(tmp_path, 'rgb/other_10.01.jpg')  # of another recording
    found = finder(tmp_path, max_difference=0.05).find()
    assert found.frames == [
        pair('run_10.00', 'rgb/run_10.00.jpg', 'depth/run_10.01.png'),
        pair('run_10.10', 'rgb/run_10.10.jpg', 'depth/run_10.11.png'),
    ]
    assert found.problems == []  # what is left over belongs to the faster camera
    options = dict(confidence='sure/*.png', min_confidence=1.0)
    sure = finder(tmp_path, max_difference=0.05, **options).find()
    assert [ref.locator[2] for ref in sure.frames] == ['sure/run_10.01.png', 'sure/run_10.11.png']
    assert finder(tmp_path, max_difference=0.05).options()['max_difference'] == 0.05
    with pytest.raises(SourceError, match='None are as close as --max-difference'):
        finder(tmp_path, max_difference=0.005).find()


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (['a.jpg'], "'a' does not end in a time"),
        (['1.jpg', '1.0.jpg'], "'1' and '1.0' have the same"),
    ],
)
def test_names_without_a_time(tmp_path, names, message):
    touch(tmp_path, 'depth/1.png', *(f'rgb/{name}' for name in names))
    with pytest.raises(SourceError, match=message):
        finder(tmp_path, max_difference=0.05).find()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20, unique=True))
def test_numbers_sort_as_numbers(numbers):
    names = sorted((f'frame_{n}' for n in numbers), key=natural_order)
    assert names == [f'frame_{n}' for n in sorted(numbers)]
