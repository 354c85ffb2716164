"""A Hugging Face hub on loopback: ``hf://`` locations, each in a new process, and uploads."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest
import torch
from safetensors.torch import save

from mmmask3d.apis import get_model
from mmmask3d.checkpoints.download import DownloadError
from mmmask3d.checkpoints.files import load_checkpoint_file
from mmmask3d.checkpoints.hub import hub_file
from mmmask3d.engine.run_config import load_config

WEIGHTS = save({'a': torch.arange(3.0)})
SHA = hashlib.sha256(WEIGHTS).hexdigest()
INDEX = json.dumps({'weight_map': {'a': 'm-1.safetensors', 'b': 'm-2.safetensors'}}).encode()
FILES = {
    'me/one': {'model.safetensors': WEIGHTS, 'README.md': b'#', 'config.json': b'{}'},
    'me/two': {'a.pth': b'x', 'b.pth': b'y'},
    'me/shards': {
        f'vit/{name}': content
        for name, content in {
            'm.safetensors.index.json': INDEX,
            'm-1.safetensors': WEIGHTS,
            'm-2.safetensors': save({'b': torch.ones(2)}),
            'config.json': b'{"hidden_act": "gelu"}',
        }.items()
    },
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
        if self.command != 'HEAD':
            self.wfile.write(body)

    def do_GET(self):
        path = unquote(urlsplit(self.path).path).removeprefix('/').removeprefix('api/models/')
        repo, rest = '/'.join(path.split('/')[:2]), path.split('/')[2:]
        kind, revision, *file = rest or ('', '')
        files = FILES.get(repo)
        if files is None or revision not in ('main', 'v1', COMMIT):
            self.answer(404, b'', X_Error_Code='RepoNotFound')
        elif kind == 'tree':
            rows = [
                dict(type='file', path=n, size=len(b), oid=hashlib.sha1(b).hexdigest())
                for n, b in files.items()
            ]
            self.answer(200, json.dumps(rows).encode(), Content_Type='application/json')
        elif '/'.join(file) not in files:
            self.answer(404, b'', X_Error_Code='EntryNotFound')
        else:
            body = files['/'.join(file)]
            tag = hashlib.sha1(body).hexdigest()
            self.answer(200, body, ETag=f'"{tag}"', X_Repo_Commit=COMMIT)

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        path = urlsplit(self.path).path.removeprefix('/api/')
        repo = path.removeprefix('models/').partition('/preupload/')[0].partition('/commit/')[0]
        reply = {}
        if self.headers.get('Authorization') != 'Bearer secret':
            self.answer(401, b'{"error": "Invalid username or password."}')
            return
        if path == 'repos/create':
            asked = json.loads(body)
            repo = f'{asked["organization"]}/{asked["name"]}'
            FILES.setdefault(repo, {})
            reply = dict(url=f'http://{self.headers["Host"]}/{repo}')
        elif '/preupload/' in path:
            files = [f['path'] for f in json.loads(body)['files']]
            reply = dict(
                files=[dict(path=f, uploadMode='regular', shouldIgnore=False) for f in files]
            )
        elif '/commit/' in path:
            for row in map(json.loads, body.splitlines()):
                if row['key'] == 'file':
                    content = base64.b64decode(row['value']['content'])
                    FILES[repo][row['value']['path']] = content
            url = f'http://{self.headers["Host"]}/{repo}/commit/{COMMIT}'
            reply = dict(commitUrl=url, commitOid=COMMIT, pullRequestUrl=None)
        self.answer(200, json.dumps(reply).encode(), Content_Type='application/json')


@pytest.fixture
def hub():
    """Address of the hub."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f'http://127.0.0.1:{server.server_address[1]}'
    server.shutdown()
    server.server_close()


@pytest.fixture
def read(hub, tmp_path):
    """Read locations in a new process; returns what is printed."""
    code = (
        'import sys; from mmmask3d.checkpoints.hub import hub_file\n'
        'for location in sys.argv[1:]:\n'
        '    try: print(hub_file(location).read_bytes().hex())\n'
        '    except OSError as error: print(type(error).__name__, error)'
    )

    def read(*locations):
        env = {
            **{k: v for k, v in os.environ.items() if not k.lower().endswith('_proxy')},
            'HF_ENDPOINT': hub,
            'HF_HOME': str(tmp_path / 'hub'),
            'HF_HUB_DISABLE_XET': '1',
        }
        done = subprocess.run(
            [sys.executable, '-c', code, *locations], capture_output=True, text=True, env=env
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return read


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


def test_a_sharded_checkpoint_comes_whole(read, tmp_path):
    """Named by its index, which is the only kind of its sort; with the settings beside it."""
    assert read('hf://me/shards') == [INDEX.hex()]
    (path,) = (tmp_path / 'hub').rglob('*.index.json')
    assert json.loads((path.parent / 'config.json').read_text()) == {'hidden_act': 'gelu'}
    state = load_checkpoint_file(path)['state_dict']
    torch.testing.assert_close(state, {'a': torch.arange(3.0), 'b': torch.ones(2)})


@pytest.fixture
def publish(hub, load_tool, tiny_config, tmp_path, monkeypatch, capsys):
    """Function that publishes a tiny model to the hub: the code, and what was said."""
    for name in [n for n in os.environ if n.lower().endswith('_proxy')]:
        monkeypatch.delenv(name)
    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', hub)
    monkeypatch.setattr('huggingface_hub.constants.HF_TOKEN_PATH', str(tmp_path / 'none'))
    huggingface_hub.close_session()
    cfg = load_config(tiny_config)
    source = str(tmp_path / 'epoch_2.pth')
    meta = {'cfg': cfg.pretty_text, 'epoch': 2}
    torch.save({'state_dict': get_model(cfg).state_dict(), 'meta': meta}, source)
    options = ['--data-license=own frames', '--terms=Apache-2.0']
    tool = load_tool('misc/publish_model.py')

    def publish(repository, token):
        monkeypatch.setenv('HF_TOKEN', token)
        code = tool.main([source, str(tmp_path / 'zoo/mine'), *options, '--hub', repository])
        return code, capsys.readouterr()

    yield publish
    huggingface_hub.close_session()


def test_what_is_published_can_be_loaded_from_the_hub(publish, read, tmp_path):
    code, said = publish('me/new', 'secret')
    assert code == 0, said.err
    assert f'/me/new/commit/{COMMIT}' in said.out
    (weights,) = (tmp_path / 'zoo').glob('mine-*.safetensors')
    assert read('hf://me/new') == [weights.read_bytes().hex()]
    assert set(FILES['me/new']) == {'encoder.safetensors', 'config.json', 'README.md'}
    card = json.loads(FILES['me/new']['config.json'])
    assert card['file'] == 'encoder.safetensors'
    assert card['backbone']['arch']['embed_dims'] == 48
    readme = FILES['me/new']['README.md'].decode()
    assert readme.startswith('---\nlibrary_name: mmmask3d\n---\n\n# mine\n')
    assert '| File | `encoder.safetensors`' in readme


def test_an_upload_that_is_refused_leaves_the_files(publish, tmp_path):
    code, said = publish('me/refused', 'wrong')
    assert code == 1
    assert 'me/refused: the hub does not take the files (' in said.err
    assert 'Log in with `hf auth login`' in said.err
    assert 'me/refused' not in FILES
    assert len(list((tmp_path / 'zoo').iterdir())) == 3
    code, said = publish('no-owner', 'secret')
    assert code == 1
    assert 'no-owner: expected the name of a repository on the hub, owner/name' in said.err


def test_a_location_that_is_none():
    with pytest.raises(DownloadError, match=r'expected hf://owner/name\[@revision\]\[:file\]'):
        hub_file('hf://only-a-name')


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(DownloadError, match=r"pip install 'mmmask3d\[hub\]'"):
        hub_file('hf://me/one')
