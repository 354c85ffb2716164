"""Downloads from a server on loopback that does everything a server can do wrong."""

import contextlib
import hashlib
import multiprocessing
import os
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from mmmask3d.checkpoints import download as module
from mmmask3d.checkpoints.download import DownloadError, cached_path, download, split_sha256
from mmmask3d.checkpoints.files import CheckpointError
from mmmask3d.checkpoints.locations import read_checkpoint, with_sha256
from mmmask3d.models import Mask3DViT

BODY = random.Random(0).randbytes(700_001)
OTHER = random.Random(1).randbytes(700_001)
SHA = hashlib.sha256(BODY).hexdigest()
FORK = multiprocessing.get_context('fork')


class Server(ThreadingHTTPServer):
    """Serves one file, as the test sets it up; `seen` has the path of every request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.body = BODY
        self.cuts, self.statuses, self.seen = [], [], []
        self.redirect = None
        self.stall = 0.0

    def url(self, name='weights.pth', sha=None):
        address = f'http://127.0.0.1:{self.server_address[1]}/{name}'
        return address if sha is None else f'{address}#sha256={sha}'


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.seen.append(self.path)
        if server.statuses:
            status = server.statuses.pop(0)
            self.send_response(status)
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        if server.redirect and self.path != '/moved':
            self.send_response(302)
            self.send_header('Location', server.redirect)
            self.send_header('Content-Length', '0')
            self.end_headers()
            return
        self.send_response(200)
        self.send_header('Content-Length', str(len(server.body)))
        self.end_headers()
        cut = server.cuts.pop(0) if server.cuts else None
        self.wfile.write(server.body[:cut])
        self.wfile.flush()
        if server.stall:
            threading.Event().wait(server.stall)
        if cut is not None:
            self.close_connection = True


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache, where the user's environment puts it; waits between attempts are left out."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr(torch.hub, '_hub_dir', None)
    monkeypatch.setattr('pooch.core.time.sleep', lambda seconds: None)
    for name in ('http_proxy', 'https_proxy', 'all_proxy'):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / 'hub/checkpoints'


def begun(folder):
    """Whether a file has content; names may go between the listing and the look."""
    for path in folder.rglob('*'):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_size:
                return True
    return False


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())


def test_a_file_is_downloaded_once_verified_and_complete(server, cache):
    url = server.url(sha=SHA)
    path = download(url)
    assert path.read_bytes() == BODY
    assert path == cached_path(url)
    assert path.is_relative_to(cache)
    assert files(cache) == [path.relative_to(cache).as_posix()]
    assert download(server.url(sha=SHA.upper())) == path
    assert server.seen == ['/weights.pth']


def test_files_of_one_name_from_two_places_are_two_files(server, cache):
    first = download(server.url('a/weights.pth', SHA))
    server.body = OTHER
    other = hashlib.sha256(OTHER).hexdigest()
    second = download(server.url('b/weights.pth', other))
    assert first.read_bytes() == BODY
    assert second.read_bytes() == OTHER
    assert first.name == second.name


def test_what_torch_has_downloaded_is_used_if_its_hash_is_right(server, cache):
    cache.mkdir(parents=True)
    (cache / 'weights.pth').write_bytes(BODY)
    assert download(server.url(sha=SHA)) == cache / 'weights.pth'
    assert server.seen == []
    (cache / 'weights.pth').write_bytes(OTHER)  # another file of that name
    assert download(server.url(sha=SHA)).read_bytes() == BODY
    assert (cache / 'weights.pth').read_bytes() == OTHER


def https_everywhere(split):
    """A stand-in that takes the server on loopback for one with https."""
    return lambda url: split(url)._replace(scheme='https') if '127.0.0.1' in url else split(url)


@pytest.mark.parametrize('sha', [SHA, None])
def test_a_connection_that_breaks_is_tried_again_from_the_start(server, cache, monkeypatch, sha):
    if sha is None:  # requests itself sees that the body is shorter than announced
        monkeypatch.setattr(module, 'urlsplit', https_everywhere(module.urlsplit))
    server.cuts = [300_000, 0]
    path = download(server.url(sha=sha))
    assert path.read_bytes() == BODY
    assert len(server.seen) == 3
    server.cuts = [300_000] * 2
    with pytest.raises(DownloadError, match=r'2 times: .*300000 bytes read.*put the file at'):
        download(server.url('other.pth', sha), retries=1)
    assert files(cache) == [path.relative_to(cache).as_posix()]


def test_what_a_killed_process_left_is_removed(server, cache):
    server.stall, server.cuts = 30.0, [300_000]
    process = FORK.Process(target=download, args=(server.url(sha=SHA),))
    process.start()
    deadline = time.monotonic() + 60
    while not begun(cache):
        assert time.monotonic() < deadline
    process.kill()
    process.join()
    assert len(files(cache)) == 1
    server.stall, server.cuts = 0.0, []
    path = download(server.url(sha=SHA))
    assert path.read_bytes() == BODY
    assert files(cache) == [path.relative_to(cache).as_posix()]


def test_a_wrong_hash_is_refused_and_nothing_is_kept(server, cache):
    wrong = hashlib.sha256(OTHER).hexdigest()
    with pytest.raises(DownloadError, match=rf'is {SHA}, but {wrong} was asked for'):
        download(server.url(sha=wrong))
    assert files(cache) == []
    assert len(server.seen) == 1


def test_the_hash_in_a_name_is_checked_and_a_full_hash_overrules_it(server, cache, monkeypatch):
    monkeypatch.setattr(module, 'urlsplit', https_everywhere(module.urlsplit))
    good, wrong, dated = f'vit-{SHA[:8]}.pth', 'vit-0123abcd.pth', 'vit-20230131.pth'
    assert download(server.url(good)).read_bytes() == BODY
    with pytest.raises(DownloadError, match=rf"0123abcd was asked for.*file's name.*#sha256={SHA}"):
        download(server.url(wrong))
    assert download(server.url(wrong, SHA)).read_bytes() == BODY
    assert download(server.url(dated)).read_bytes() == BODY


def test_a_damaged_file_in_the_cache_is_replaced(server, cache):
    path = download(server.url(sha=SHA))
    path.write_bytes(BODY[:-1])
    assert download(server.url(sha=SHA)).read_bytes() == BODY


def test_https_without_a_hash_warns_with_the_hash_to_pin(
    server, cache, monkeypatch, warnings_logged_by_mmengine
):
    monkeypatch.setattr(module, 'urlsplit', https_everywhere(module.urlsplit))
    download(server.url())
    (warning,) = warnings_logged_by_mmengine
    assert f'#sha256={SHA}' in warning


def test_http_without_a_complete_hash_is_refused(server, cache):
    for name in ('weights.pth', f'weights-{SHA[:8]}.pth'):
        with pytest.raises(DownloadError, match='over http anybody'):
            download(server.url(name))
    assert server.seen == []


@pytest.mark.parametrize(
    ('code', 'message'),
    [(404, r'there is no such file \(404'), (403, 'access is refused'), (401, 'log in first')],
)
def test_refusals_are_told_at_once(server, cache, code, message):
    server.statuses = [code]
    with pytest.raises(DownloadError, match=message):
        download(server.url(sha=SHA))
    assert len(server.seen) == 1
    assert files(cache) == []


def test_a_server_that_is_busy_is_asked_again(server, cache):
    server.statuses = [503, 429]
    assert download(server.url(sha=SHA)).read_bytes() == BODY
    server.statuses = [503] * 3
    with pytest.raises(DownloadError, match=r'HTTPError, 3 times: 503'):
        download(server.url('other.pth', SHA), retries=2)


def test_no_server(cache):
    with pytest.raises(DownloadError, match=r'ConnectionError, 2 times.*put the file at .*\.pth'):
        download(f'http://127.0.0.1:9/weights.pth#sha256={SHA}', retries=1)


def test_a_server_that_falls_silent(server, cache):
    server.stall, server.cuts = 3.0, [100]
    with pytest.raises(DownloadError, match=r'1 times: .*[Tt]imed? ?out'):
        download(server.url(sha=SHA), timeout=0.2, retries=0)


def test_redirections(server, cache, monkeypatch):
    server.redirect = server.url('moved')
    assert download(server.url(sha=SHA)).read_bytes() == BODY
    server.redirect = 'file:///etc/hostname'
    with pytest.raises(DownloadError, match=r'file:///etc/hostname'):
        download(server.url('b.pth', SHA))
    # From https to http: the request is taken for one with https, the new address is not.
    server.redirect = server.url('moved')
    split = module.urlsplit
    monkeypatch.setattr(
        module, 'urlsplit', lambda u: split(u)._replace(scheme='https' if '/c.' in u else 'http')
    )
    with pytest.raises(DownloadError, match='redirection from https to http://'):
        download(server.url('c.pth', SHA))
    assert len(files(cache)) == 1


def test_full_disk(server, cache, monkeypatch):
    def no_space(*args):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(module.os, 'replace', no_space)
    with pytest.raises(DownloadError, match=r'no space is left.*TORCH_HOME'):
        download(server.url(sha=SHA))
    assert files(cache) == []


def test_a_folder_that_cannot_be_written(server, cache):
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text('')
    with pytest.raises(DownloadError, match='cannot be written'):
        download(server.url(sha=SHA))


@pytest.mark.parametrize('bad', ['#sha256=123', '#md5=00', f'#sha256={SHA}0'])
def test_a_fragment_that_is_no_hash(bad, cache):
    with pytest.raises(DownloadError, match='expected nothing or sha256='):
        download(f'https://example.org/w.pth{bad}')


def test_arguments():
    assert split_sha256(f'https://e.org/w#sha256={SHA.upper()}') == ('https://e.org/w', SHA)
    with pytest.raises(DownloadError, match='starts with https://'):
        download(f'ftp://e.org/w#sha256={SHA}')


def test_progress(server, cache, capsys, monkeypatch):
    download(server.url('a.pth', SHA))
    assert capsys.readouterr().err == ''  # no terminal
    monkeypatch.setattr(module.sys.stderr, 'isatty', lambda: True)
    download(server.url('b.pth', SHA))
    assert '700k/700k' in capsys.readouterr().err


# ---------------------------------------------------------------- through init_cfg and mmengine

ARCH = dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=48)


@pytest.fixture
def served(server, cache, tmp_path):
    """A server that has the weights of a small encoder, their hash, and the encoder."""
    torch.manual_seed(0)
    model = Mask3DViT(arch=ARCH, img_size=32, patch_size=16)
    model.init_weights()
    path = tmp_path / 'local.pth'
    torch.save({'state_dict': model.state_dict()}, path)
    server.body = path.read_bytes()
    return server, hashlib.sha256(server.body).hexdigest(), model, path


def fill(**init_cfg):
    model = Mask3DViT(
        arch=ARCH, img_size=32, patch_size=16, init_cfg=dict(type='Pretrained', **init_cfg)
    )
    model.init_weights()
    return model


def test_an_encoder_from_a_url_with_its_hash(served):
    server, sha, expected, path = served
    for init_cfg in (
        dict(checkpoint=server.url(sha=sha)),
        dict(checkpoint=server.url(), sha256=sha),
        dict(checkpoint=str(path), sha256=sha),
    ):
        model = fill(**init_cfg)
        for key, value in expected.state_dict().items():
            assert torch.equal(model.state_dict()[key], value)
    loaded = read_checkpoint(server.url(sha=sha))
    assert loaded['state_dict'].keys() == expected.state_dict().keys()


def test_a_wrong_hash_loads_nothing(served):
    server, sha, _, path = served
    wrong = '0' * 64
    with pytest.raises(DownloadError, match=rf'{sha}, but {wrong}'):
        fill(checkpoint=server.url(), sha256=wrong)
    with pytest.raises(CheckpointError, match=rf'its sha256 is {sha}, expected {wrong}'):
        fill(checkpoint=str(path), sha256=wrong)
    with pytest.raises(CheckpointError, match='contradicts the URL'):
        fill(checkpoint=server.url(sha=sha), sha256=wrong)
    with pytest.raises(CheckpointError, match='local files'):
        with_sha256('s3://bucket/weights.pth', sha)


def load_and_count(url, rank, results):
    os.environ['LOCAL_RANK'] = str(rank)
    loaded = read_checkpoint(url)
    results.put(len(loaded['state_dict']))


def test_processes_of_one_run_share_the_file(served):
    server, sha, expected, _ = served
    server.stall = 0.3
    results = FORK.Queue()
    arguments = [(server.url(sha=sha), rank, results) for rank in range(3)]
    processes = [FORK.Process(target=load_and_count, args=each) for each in arguments]
    for process in processes:
        process.start()
    counts = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert counts == [len(expected.state_dict())] * 3
    assert len(server.seen) == 1
