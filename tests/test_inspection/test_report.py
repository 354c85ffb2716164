"""Reports: a stable schema, pages that load nothing and escape every name."""

import json
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from mmmask3d.inspection.check import CheckOptions, check_sets
from mmmask3d.inspection.report import as_html, as_json, as_text
from mmmask3d.inspection.sources import LabelMaps, open_folder

EVIL = '<script>alert(1)</script>&"\''


class Page(HTMLParser):
    """Collects tags, attributes and text, as a browser would see them."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ''
        self.feed(content.decode('utf-8'))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope='module')
def result(make_scene_folder, tmp_path_factory):
    folder = make_scene_folder(tmp_path_factory.mktemp('report') / 'set', n=9, size=(72, 96))
    evil = EVIL.replace('/', '')
    for kind in ('rgb', 'depth'):
        (folder / kind / '000.png').rename(folder / kind / f'{evil}.png')
    (folder / f'depth/{evil}.png').write_bytes(b'')
    (folder / 'sem').mkdir()
    cv2.imwrite(str(folder / 'sem/001.png'), np.full((72, 96), 2, np.uint8))
    source = open_folder(folder, {'img_suffix': '.png'})
    source.labels = [LabelMaps('sem', f'{folder}/sem', '.png', ('a', 'b'))]
    source.splits = {'train': [str(path) for path in (folder / 'rgb').glob('00*.png')], EVIL: []}
    return check_sets([source], CheckOptions(1, 20, progress=False))


def test_schema(result):
    data = json.loads(as_json(*result))
    assert list(data) == ['schema_version', 'mmmask3d', 'counts', 'sets', 'findings']
    assert data['schema_version'] == 1
    assert data['counts'] == {'error': 1, 'warning': 0, 'note': 2}
    (one,) = data['sets']
    assert list(one) == [
        *('title', 'frames', 'unusable', 'sizes', 'depth_kind', 'depth_scale', 'depth_invalid'),
        *('max_depth', 'depth', 'splits', 'registration'),
    ]
    assert (one['frames'], one['unusable'], one['sizes']) == (9, 1, {'96x72': 9})
    assert set(one['depth']) == {'median', 'low', 'high', 'invalid_share'}
    assert one['splits'] == {'train': 8, EVIL: 0}
    registration = one['registration']
    assert list(registration) == [
        *('verdict', 'used', 'shift', 'scale', 'displacement', 'interval', 'agreement'),
        *('agreement_as_is', 'agreement_shuffled', 'p_value', 'width'),
    ]
    assert registration['used'] == 8
    for finding in data['findings']:
        keys = ['code', 'level', 'source', 'message', 'advice', 'files', 'details']
        assert list(finding) == keys
    assert [f['level'] for f in data['findings']] == ['error', *['note'] * 2]
    assert data['findings'][0]['code'] == 'truncated'


def test_the_page_is_self_contained_and_escaped(result):
    content = as_html(*result)
    page = Page(content)
    assert 'script' not in page.tags
    assert EVIL.replace('/', '') in page.text
    assert EVIL in page.text
    assert page.tags.count('img') == 3  # examples
    for tag, name, value in page.attributes:
        assert not name.startswith('on')
        if name == 'src':
            assert value.startswith('data:image/jpeg;base64,')
        if name == 'href':
            assert value.startswith('#')
        assert tag not in ('link', 'iframe', 'object')
    assert b'url(' not in content
    assert b'@import' not in content
    assert ('meta', 'http-equiv', 'Content-Security-Policy') in page.attributes
    assert len(content) < 1_000_000


def test_the_text_names_files_and_what_to_do(result):
    text = as_text(*result)
    assert 'ERROR truncated: files that end too early: 1' in text
    assert '<script>alert(1)<script>&"\'.png: the file is empty' in text
    assert '  -> Copy or convert them again' in text
    assert text.endswith('1 error, 0 warnings, 2 notes')


def test_control_characters_do_not_reach_the_terminal(make_rgbd_folder, tmp_path):
    folder = make_rgbd_folder(tmp_path / 'set', 2)
    for kind in ('rgb', 'depth'):
        (folder / kind / 'frame_000.png').rename(folder / kind / 'a\x1b[2Jb.png')
    (folder / 'depth/a\x1b[2Jb.png').write_bytes(b'')
    source = open_folder(folder, {'img_suffix': '.png'})
    checked = check_sets([source], CheckOptions(1, 0, progress=False))
    text = as_text(*checked)
    assert '\x1b' not in text
    assert 'a\\x1b[2Jb.png' in text
    assert Page(as_html(*checked)).text.count('b.png') > 0
