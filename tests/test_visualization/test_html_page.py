"""Elements, tables and filters of the pages."""

import base64
import re
from io import BytesIO

import numpy as np
from PIL import Image

from mmmask3d.visualization.html_page import Row, element, filtered, page, picture, table, text


def test_everything_but_markup_is_escaped():
    assert text('<b a="1">&\'') == '&lt;b a=&quot;1&quot;&gt;&amp;&#x27;'
    inner = element('i', '<', class_='a"b')
    assert inner == '<i class="a&quot;b">&lt;</i>'
    assert element('p', inner, 3, title=None) == f'<p>{inner}3</p>'
    assert text(inner) == inner


def test_a_table_aligns_numbers():
    made = table(['<a>', 'b'], [Row((1, 'x'), ('holes',)), Row(('2.5 m', '12.0%'))])
    assert '<th>&lt;a&gt;</th>' in made
    assert '<tr class="item holes"><td class="number">1</td><td>x</td></tr>' in made
    assert made.count('class="number"') == 3


def test_a_picture_is_inside_the_page():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = (250, 10, 10)
    tag = picture(image, 'a "red" half')
    assert 'alt="a &quot;red&quot; half"' in tag
    data = base64.b64decode(re.search(r'base64,([^"]+)"', tag)[1])
    shown = np.asarray(Image.open(BytesIO(data))).astype(int)
    assert np.abs(shown[:, :13] - image[:, :13]).max() < 12
    assert np.abs(shown[:, 17:] - image[:, 17:]).max() < 12


def test_a_filter_hides_what_is_not_of_the_kind():
    made = filtered({'holes': 'many <holes>'}, element('p', 'x', class_='item holes'))
    assert '#show-holes:checked ~ .content .item:not(.holes) { display: none; }' in made
    assert re.findall(r'id="([\w-]+)"( checked)?', made) == [
        ('show-all', ' checked'),
        ('show-holes', ''),
    ]
    assert 'many &lt;holes&gt;' in made


def test_a_page_allows_no_script_and_no_loading():
    made = page('<t>', element('p', 'a\udcffb'))
    assert made.startswith(b'<!DOCTYPE html>')
    assert b'<title>&lt;t&gt;</title>' in made
    assert b"default-src 'none'; img-src data:; style-src 'unsafe-inline'" in made
    assert b'a\\udcffb' in made  # bytes of a file name that are no text
    made.decode('utf-8')
