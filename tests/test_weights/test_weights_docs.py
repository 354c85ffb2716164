"""What docs/weights.md says of locations is so."""

import re
from pathlib import Path

import pytest
from mmengine.model.weight_init import PretrainedInit

import mmmask3d
from mmmask3d.checkpoints.download import DownloadError, cached_path

PAGE = (Path(mmmask3d.__file__).parents[1] / 'docs/weights.md').read_text()


def test_every_init_cfg_shown_is_one():
    (text,) = re.findall(r'^```python\n(.*?)^```', PAGE, flags=re.M | re.S)
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
    assert '`$TORCH_HOME/hub/checkpoints/mmmask3d/`' in PAGE
    path = cached_path('https://example.org/encoder.pth')
    assert path.is_relative_to(tmp_path / 'hub/checkpoints/mmmask3d')
    with pytest.raises(DownloadError):
        cached_path('https://example.org/encoder.pth#sha256=<64 digits>')
