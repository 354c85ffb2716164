"""The commands on the pages of the generic converters can be given as they are printed."""

import re
import shlex
from pathlib import Path

import pytest

from mmmask3d.conversion.command_line import build_parser
from mmmask3d.conversion.sources.folder import FolderConverter
from mmmask3d.conversion.sources.predicted_depth import PredictedDepthConverter

DOCS = Path(__file__).parents[2] / 'docs/datasets'
CONVERTERS = {'any_folder': FolderConverter, 'predicted_depth': PredictedDepthConverter}


def commands(page):
    """Arguments of each converter call in the code blocks of a page, by the converter's name."""
    text = (DOCS / page).read_text()
    blocks = re.findall(r'^```(\w*)\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
    for line in (
        ''.join(block for language, block in blocks if not language)
        .replace('\\\n', ' ')
        .splitlines()
    ):
        words = shlex.split(line)
        if words[:1] == ['python'] and Path(words[1]).stem in CONVERTERS:
            yield Path(words[1]).stem, words[2:]


@pytest.mark.parametrize(('page', 'count'), [('your_frames.md', 3), ('predicted_depth.md', 1)])
def test_commands_parse(page, count):
    found = list(commands(page))
    assert len(found) == count
    for name, words in found:
        args = build_parser(CONVERTERS[name]).parse_args(words)
        assert args.source.parts[0] == args.out.parts[0] == 'data'


def test_the_first_command_prints_what_the_page_shows(tiny_rooms, tmp_path, monkeypatch, capsys):
    from mmmask3d.conversion.command_line import run

    monkeypatch.chdir(tmp_path)
    Path('data').mkdir()
    Path('data/rooms').symlink_to(tiny_rooms)
    _, words = next(commands('your_frames.md'))
    assert run(FolderConverter, [*words, '--workers=1']) == 0
    printed = capsys.readouterr().out
    page = (DOCS / 'your_frames.md').read_text()
    assert printed in page
