"""``hf://`` locations against a hub on loopback; each in a new process, which reads HF_ENDPOINT."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
import torch
from safetensors.torch import save

from mmmask3d.checkpoints.download import DownloadError
from mmmask3d.checkpoints.hub import hub_file

WEIGHTS = save({'a': torch.arange(3.0)})
SHA = hashlib.sha256(WEIGHTS).hexdigest()
FILES = {
    'me/one': {'model.safetensors': WEIGHTS, 'README.md': b'#'},
    'me/two': {'a.pth': b'x', 'b.pth': b'y'},
}
COMMIT = 'c' * 40


class Hub(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {'Content-Length': len(body), **headers}.items():
            self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        if self.command == 'GET':
            self.wfile.write(body)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).removeprefix('/').removeprefix('api/models/')
        repo, (kind, revision, *file) = '/'.join(path.split('/')[:2]), path.split('/')[2:]
        files = FILES.get(repo)
        if files is None or revision not in ('main', 'v1', COMMIT):
            self.answer(404, b'', X_Error_Code='RepoNotFound')
        elif kind == 'tree':
            rows = [
                dict(type='file', path=n, size=len(b), oid=hashlib.sha1(b).hexdigest())
                for n, b in files.items()
            ]
            self.answer(200, json.dumps(rows).encode(), Content_Type='application/json')
        else:
            body = files['/'.join(file)]
            tag = hashlib.sha1(body).hexdigest()
            self.answer(200, body, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET


@pytest.fixture
def read(tmp_path):
    """Read a location in a new process; returns what is printed, or raises its last line."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    code = (
        'import sys; from mmmask3d.checkpoints.hub import hub_file\n'
        'for location in sys.argv[1:]:\n'
        '    try: print(hub_file(location).read_bytes().hex())\n'
        '    except OSError as error: print(type(error).__name__, error)'
    )

    def read(*locations):
        env = {
            **{k: v for k, v in os.environ.items() if not k.lower().endswith('_proxy')},
            'HF_ENDPOINT': f'http://127.0.0.1:{server.server_address[1]}',
            'HF_HOME': str(tmp_path / 'hub'),
            'HF_HUB_DISABLE_XET': '1',
        }
        done = subprocess.run(
            [sys.executable, '-c', code, *locations], capture_output=True, text=True, env=env
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    yield read
    server.shutdown()
    server.server_close()


def test_files_of_the_hub(read):
    wrong = '0' * 64
    *found, two, missing, other = read(
        'hf://me/one',
        'hf://me/one@v1:model.safetensors',
        f'hf://me/one#sha256={SHA}',
        'hf://me/two:b.pth',
        'hf://me/two',
        'hf://me/none',
        f'hf://me/one#sha256={wrong}',
    )
    assert found == [WEIGHTS.hex()] * 3 + [b'y'.hex()]
    assert 'expected one file of weights there, found a.pth, b.pth. Name it: hf://owner' in two
    assert 'DownloadError hf://me/none: the hub does not give it (RepositoryNotFound' in missing
    assert f'is {SHA}, but {wrong} was asked for' in other


def test_a_location_that_is_none():
    with pytest.raises(DownloadError, match=r'expected hf://owner/name\[@revision\]\[:file\]'):
        hub_file('hf://only-a-name')


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(DownloadError, match=r"pip install 'mmmask3d\[hub\]'"):
        hub_file('hf://me/one')
