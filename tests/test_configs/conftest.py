"""Configs set the default scope of the process; tests leave it as they found it."""

import pytest
from mmengine.registry import DefaultScope


@pytest.fixture(autouse=True)
def keep_default_scope():
    instances = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(instances)
