"""HTML pages in one file: pictures inside, no script, nothing loaded, every name escaped."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO

import numpy as np
from PIL import Image

_QUALITY = 85
_TAG = re.compile(r'<[^>]*>')
_NUMBER = re.compile(r'[-+]?[\d.]+( ± [\d.e-]+)?(x\d+| ?%| m)?')
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5em auto; padding: 0 1em;
  max-width: 1900px; color: #222; background: #fff; }
h1 { font-size: 1.5em; } h2 { font-size: 1.2em; margin-top: 1.6em; }
table { border-collapse: collapse; margin: .6em 0; }
th, td { border-bottom: 1px solid #ddd; padding: .25em .7em; text-align: left;
  vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; border: 1px solid #ddd; }
figure { margin: 1.2em 0; } figcaption { overflow-wrap: anywhere; }
code, td { overflow-wrap: anywhere; } td:first-child { overflow-wrap: normal; }
details { margin: .3em 0; } summary { cursor: pointer; }
.error { border-left: 4px solid #c0271b; } .warning { border-left: 4px solid #d99a00; }
.note { border-left: 4px solid #5b8db8; }
section.finding { padding: .1em .9em; margin: .7em 0; background: #f8f8f8; }
.filters input { margin-left: 1em; }
"""


class Markup(str):
    """Text that is HTML already; any other text is escaped."""


def text(value: object) -> Markup:
    """Escape a text, unless it is :class:`Markup`."""
    return value if isinstance(value, Markup) else Markup(escape(str(value), quote=True))


def element(tag: str, *content: object, **attributes: object) -> Markup:
    """An element; content and attribute values are escaped.

    Args:
        tag: Its name.
        *content: What is inside.
        **attributes: ``class_`` for ``class``; None leaves the attribute out.
    """
    given = ''.join(
        f' {name.rstrip("_")}="{text(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f'<{tag}{given}>{"".join(text(part) for part in content)}</{tag}>')


def picture(image: np.ndarray, description: str) -> Markup:
    """A picture inside the page, as JPEG.

    Args:
        image: RGB uint8 (H, W, 3).
        description: For those who do not see it.
    """
    buffer = BytesIO()
    # Without chroma subsampling: thin coloured lines on grey would fade.
    Image.fromarray(image).save(buffer, 'JPEG', quality=_QUALITY, subsampling=0, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode('ascii')
    height, width = image.shape[:2]
    return Markup(
        f'<img src="data:image/jpeg;base64,{data}" alt="{text(description)}" width="{width}" '
        f'height="{height}" loading="lazy" style="height: auto">'
    )


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    cells: Sequence[object]  # numbers, with or without a unit, are set to the right
    kinds: Sequence[str] = ()  # for filtered()


def table(headings: Sequence[str], rows: Iterable[Row]) -> Markup:
    """A table."""
    head = element('tr', *(element('th', heading) for heading in headings))
    body = [
        element(
            'tr',
            *(element('td', cell, class_=_alignment(cell)) for cell in row.cells),
            class_=' '.join(['item', *row.kinds]),
        )
        for row in rows
    ]
    return element('table', element('thead', head), element('tbody', *body))


def _alignment(cell: object) -> str | None:
    return 'number' if _NUMBER.fullmatch(_TAG.sub('', str(cell))) else None


def filtered(kinds: Mapping[str, str], *content: Markup) -> Markup:
    """Content of which one kind at a time can be chosen, by radio buttons and style alone.

    Args:
        kinds: Labels by kind. An element of class ``item`` is of a kind if it has that as a class.
        *content: What is filtered.
    """
    buttons: list[Markup] = []
    rules = []
    for kind, label in {'all': 'all', **kinds}.items():
        buttons.append(
            Markup(
                f'<input type="radio" name="filter" id="show-{text(kind)}"'
                f'{" checked" if kind == "all" else ""}>'
            )
        )
        buttons.append(Markup(f'<label for="show-{text(kind)}">{text(label)}</label>'))
        if kind != 'all':
            rules.append(f'#show-{kind}:checked ~ .content .item:not(.{kind}) {{ display: none; }}')
    style = Markup(f'<style>{" ".join(rules)}</style>')
    inside = element('div', *content, class_='content')
    return element('div', style, *buttons, inside, class_='filters')


def page(title: str, *content: Markup) -> bytes:
    """A whole page, UTF-8.

    Browsers are told to load nothing and to run no script, whatever a name may contain.
    """
    body = ''.join(text(part) for part in content)
    document = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width">'
        f'<title>{text(title)}</title><style>{_STYLE}</style></head>\n'
        f'<body>\n<h1>{text(title)}</h1>\n{body}\n</body></html>\n'
    )
    # File names may hold bytes that are no text.
    return document.encode('utf-8', errors='backslashreplace')
