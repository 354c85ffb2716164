"""Worker processes of a conversion."""

import os

from mmmask3d.conversion.workers import pool


def test_workers_compute_with_one_thread_each(monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    with pool(None, 2) as run:
        said = dict(run(os.getenv, [('OMP_NUM_THREADS',)] * 2))
    assert said == {0: '1', 1: '1'}
    assert 'OMP_NUM_THREADS' not in os.environ
