"""What docs/weights.md and docs/model_zoo.md show is understood by the tools and runs."""

import re
import shlex
from pathlib import Path

import pytest
from mmengine.model.weight_init import PretrainedInit

import mmmask3d
from mmmask3d.checkpoints.download import DownloadError, cached_path
from mmmask3d.weights import index as model_zoo

ROOT = Path(mmmask3d.__file__).parents[1]
PAGES = {name: (ROOT / 'docs' / name).read_text() for name in ('weights.md', 'model_zoo.md')}


def blocks(page, language):
    return re.findall(rf'^```{language}\n(.*?)^```', PAGES[page], flags=re.M | re.S)


COMMANDS = [
    (page, line) for page in PAGES for text in blocks(page, 'bash') for line in text.splitlines()
]


@pytest.mark.parametrize(('page', 'line'), COMMANDS)
def test_commands_are_understood(page, line, load_tool):
    words = shlex.split(line)
    assert words[0] == 'python'
    tool = load_tool(words[1].removeprefix('tools/'))
    parsed = tool.parse_args(words[2:])
    config = getattr(parsed, 'config', None)
    assert config is None or (ROOT / config).is_file()


def test_the_python_of_the_zoo_runs():
    values = {}
    first, second = blocks('model_zoo.md', 'python')
    exec(first, values)
    assert type(values['encoder']).__name__ == 'Mask3DViT'
    exec(second, values)
    location = values['init_cfg']['checkpoint']
    assert model_zoo.weights_file(location).exists()


def test_every_init_cfg_shown_is_one():
    (text,) = blocks('weights.md', 'python')
    examples = re.split(r'^(?=init_cfg)', text, flags=re.M)[1:]
    assert len(examples) == 7
    for example in examples:
        values = {}
        exec(example, values)
        cfg = values['init_cfg']
        assert cfg.pop('type') == 'Pretrained'
        assert cfg.pop('sha256', '<64 digits>') == '<64 digits>'
        PretrainedInit(**cfg)


def test_the_cache_is_where_the_page_says(monkeypatch, tmp_path):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr('torch.hub._hub_dir', None)
    assert '`$TORCH_HOME/hub/checkpoints/mmmask3d/`' in PAGES['weights.md']
    path = cached_path('https://example.org/encoder.pth')
    assert path.is_relative_to(tmp_path / 'hub/checkpoints/mmmask3d')
    with pytest.raises(DownloadError):
        cached_path('https://example.org/encoder.pth#sha256=<64 digits>')
