"""Downloads weights: once, verified, resumed where the connection broke, complete or absent.

``torch.hub.download_url_to_file`` does not resume, has no time-out and takes a body that was cut
short for a complete one unless it is given a hash; ``huggingface_hub`` resumes and verifies, but
files of its own hub only. This module needs Python's urllib and nothing else for the network.

A hash is looked for in this order: the argument, ``#sha256=<64 hex digits>`` at the end of the URL,
and the digits at the end of the file's name (``...-1a2b3c4d.pth``, the convention of torch.hub and
OpenMMLab). Without any, ``https`` is downloaded with a warning that shows the hash to pin; ``http``
is refused without a complete hash, since anybody on the way could have changed the weights.
"""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import torch
from mmengine.logging import print_log

_BLOCK = 1 << 18
_RETRIED = (429, 500, 502, 503, 504)


class DownloadError(OSError):
    """A file could not be downloaded or is not what was expected; says why and what to do."""


class _Broken(Exception):
    """The transfer ended too early; another attempt may go on from there."""


class _Hash(NamedTuple):
    """Leading digits of the expected SHA-256, and who says so."""

    digits: str
    origin: str

    def fits(self, digest: str) -> bool:
        return digest.startswith(self.digits)


# Of a transfer, and not of the disk it goes to; no ConnectionErrors.
_OF_THE_NETWORK = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}


def split_sha256(url: str) -> tuple[str, str | None]:
    """Split ``https://...#sha256=<hex>`` into the address and the hash; None where there is none.

    Raises:
        DownloadError: The fragment is something else, or not 64 hexadecimal digits.
    """
    address, mark, fragment = url.partition('#')
    if not mark:
        return url, None
    match = re.fullmatch(r'sha256=([0-9a-fA-F]{64})', fragment)
    if not match:
        raise DownloadError(
            f'{url}: expected nothing or sha256=<64 hexadecimal digits> after the #, found '
            f'{fragment!r}.'
        )
    return address, match[1].lower()


def check_digits(sha256: str, name: str) -> str:
    """A SHA-256 in lower case.

    Raises:
        DownloadError: It is not 64 hexadecimal digits.
    """
    if not re.fullmatch(r'[0-9a-fA-F]{64}', sha256):
        raise DownloadError(f'{name}: sha256 must be 64 hexadecimal digits, found {sha256!r}.')
    return sha256.lower()


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where downloads are kept: ``checkpoints`` in torch's hub folder, as mmengine does it.

    That is ``$TORCH_HOME/hub`` if the variable is set, else ``$XDG_CACHE_HOME/torch/hub``, else
    ``~/.cache/torch/hub``.
    """
    return Path(torch.hub.get_dir()) / 'checkpoints'


def cached_path(url: str, folder: str | os.PathLike | None = None) -> Path:
    """Where :func:`download` keeps the file of a URL.

    A folder for each URL: files of the same name from two places are two files.
    """
    address, _ = split_sha256(url)
    root = Path(folder) if folder is not None else cache_folder()
    name = unquote(urlsplit(address).path).rsplit('/', 1)[-1] or 'download'
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    return root / 'mmmask3d' / key / name


def download(
    url: str,
    sha256: str | None = None,
    folder: str | os.PathLike | None = None,
    progress: bool | None = None,
    timeout: float = 30.0,
    retries: int = 3,
) -> Path:
    """Return the local file of a URL, downloaded if it is not there yet.

    A file that torch or mmengine have downloaded to the same cache is used if its hash is known
    and right. Several processes may ask for the same file: one downloads, the others wait.

    Args:
        url: ``http(s)://``, with or without ``#sha256=``.
        sha256: Expected hash, 64 hexadecimal digits.
        folder: In place of :func:`cache_folder`.
        progress: Draw a bar; None for a bar on a terminal only.
        timeout: Seconds without a byte after which an attempt is given up.
        retries: Attempts after the first.

    Raises:
        DownloadError: See the message. What was received of an interrupted transfer is kept for
            the next call; nothing is left of a file with a wrong hash or on a full disk.
    """
    address, digits = split_sha256(url)
    if sha256 is not None:
        sha256 = check_digits(sha256, address)
        if digits not in (None, sha256):
            raise DownloadError(f'{url}: the argument asks for another hash, {sha256}.')
        digits = sha256
    scheme = urlsplit(address).scheme
    if scheme not in ('http', 'https'):
        raise DownloadError(f'{address}: expected a URL that starts with https:// or http://.')
    if scheme == 'http' and digits is None:
        raise DownloadError(
            f'{address}: refused, because over http anybody on the way can change the weights. Use '
            'https, or give the hash: append #sha256=<64 hexadecimal digits>.'
        )
    target = cached_path(address, folder)
    wanted = _Hash(digits, 'was asked for') if digits else _hash_in_name(target.name)
    if wanted:
        shared = target.parents[2] / target.name
        if shared.is_file() and wanted.fits(file_sha256(shared)):
            return shared
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(target.parent, address):
            if target.is_file() and not (wanted and not wanted.fits(file_sha256(target))):
                return target
            _fetch(address, target, wanted, progress, timeout, retries)
    except DownloadError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            _Part(target, address).discard()
            raise _no_space(target, None, 0) from error
        raise DownloadError(
            f'{target.parent}: cannot be written ({error.strerror or error}). Set TORCH_HOME to '
            'another folder.'
        ) from error
    return target


def _hash_in_name(name: str) -> _Hash | None:
    match = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
    if not match or re.fullmatch(r'(19|20)\d{6}', match[1]):  # a date
        return None
    return _Hash(match[1], "is in the file's name")


@contextlib.contextmanager
def _one_at_a_time(folder: Path, address: str) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _log(f'Waiting for another process that downloads {address}.')
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fetch(
    address: str,
    target: Path,
    wanted: _Hash | None,
    progress: bool | None,
    timeout: float,
    retries: int,
) -> None:
    """Bring the file to ``target``, in as many attempts as it takes and is allowed."""
    part = _Part(target, address)
    resumed, attempt = part.usable(wanted is not None), 0
    _log(f'Downloading {address} to {target}.')
    while True:
        try:
            with _meter(target.name, progress) as show:
                _transfer(address, part, wanted is not None, show, timeout)
        except _Broken as error:
            attempt += 1
            resumed = resumed or part.size > 0
            if attempt > retries:
                kept = (
                    f' {part.size} bytes are kept, and the next call goes on from there where the '
                    'server allows it.'
                    if part.size
                    else ''
                )
                raise DownloadError(
                    f'{address}: {error}, {attempt} times.{kept} Without a network, put the file '
                    f'at {target}.'
                ) from error
            _log(f'{address}: {error}; attempt {attempt + 1} of {retries + 1}.')
            time.sleep(min(2.0 ** (attempt - 1), 8.0))
            continue
        found = file_sha256(part.path)
        if wanted is None:
            _log(
                f'{address}: downloaded without a hash to compare with. To pin this very file, '
                f'append #sha256={found}',
                logging.WARNING,
            )
        elif not wanted.fits(found):
            part.discard()
            if resumed:
                # Two halves of different files, perhaps. Once more, from the start.
                _log(f'{address}: the resumed file has a wrong hash; starting over.')
                resumed = False
                continue
            trust = '' if len(wanted.digits) == 64 else (
                f' If you trust this file, append #sha256={found} to the URL.'
            )  # fmt: skip
            raise DownloadError(
                f'{address}: the sha256 of the file is {found}, but {wanted.digits} '
                f'{wanted.origin}. The file was changed, or the hash is of another one; nothing '
                f'was kept.{trust}'
            )
        os.replace(part.path, target)
        part.discard()
        return


class _Part:
    """What has been received of a file, and of which version of it."""

    def __init__(self, target: Path, address: str) -> None:
        self.path = target.with_name(f'{target.name}.part')
        self.record = target.with_name(f'{target.name}.part.json')
        self.address = address

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def read(self) -> dict[str, Any]:
        try:
            record = json.loads(self.record.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return record if record.get('address') == self.address else {}

    def usable(self, verified: bool) -> bool:
        """Whether it is known which version this is the beginning of, or a hash will tell."""
        record = self.read()
        return self.size > 0 and bool(record) and bool(verified or _validator(record))

    def begin(self, record: dict[str, Any]) -> None:
        self.path.unlink(missing_ok=True)
        self.record.write_text(json.dumps({'address': self.address, **record}))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)


def _validator(record: dict[str, Any]) -> str | None:
    """What If-Range takes: a strong entity tag, or a date."""
    tag = record.get('etag')
    return tag if tag and not tag.startswith('W/') else record.get('last_modified')


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirections, except out of https."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ('http', 'https') or (old == 'https' and new == 'http'):
            raise DownloadError(
                f'{req.full_url}: refused to follow a redirection from {old} to {newurl}. Look up '
                'the present address of the file.'
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _transfer(
    address: str,
    part: _Part,
    verified: bool,
    show: Callable[[int, int | None], None],
    timeout: float,
) -> None:
    """One attempt: receive what is missing.

    Raises:
        _Broken: Another attempt may succeed.
        DownloadError: It will not.
    """
    headers = {'User-Agent': 'mmmask3d', 'Accept-Encoding': 'identity'}
    record, start = part.read(), 0
    if part.usable(verified):
        start = part.size
        headers['Range'] = f'bytes={start}-'
        if _validator(record):
            headers['If-Range'] = _validator(record)
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=timeout) as answer:
            now = {
                'etag': answer.headers.get('ETag'),
                'last_modified': answer.headers.get('Last-Modified'),
            }
            if answer.status == 206:
                first, total = _content_range(answer.headers.get('Content-Range', ''))
                same = all(record.get(k) == v for k, v in now.items())
                if first != start or not same or record.get('total') not in (None, total):
                    part.discard()
                    raise _Broken('the server has another version of the file now')
            else:
                start, total = 0, _length(answer.headers.get('Content-Length'))
            _check_space(part.path, total, start)
            if not start:
                part.begin({**now, 'total': total})
            _receive(answer, part, start, total, show)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            # There is nothing after what we have: it is complete, or of another version.
            size = error.headers.get('Content-Range', '').rpartition('/')[2]
            if size == str(start) and (verified or record.get('total') in (None, start)):
                return
            part.discard()
            raise _Broken('the server has another version of the file now') from error
        if error.code in _RETRIED:
            raise _Broken(f'the server answers {error.code} {error.reason}') from error
        why = {401: 'log in first', 403: 'access is refused', 404: 'there is no such file'}
        raise DownloadError(
            f'{address}: {why.get(error.code, "the server refuses")} ({error.code} '
            f'{error.reason}). Open the address in a browser and check it.'
        ) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                f'{address}: the certificate of the server is not trusted ({error.reason}).'
            ) from error
        raise _Broken(f'no connection ({error.reason})') from error
    except TimeoutError as error:
        raise _Broken(f'nothing received for {timeout:g} s') from error
    except (ConnectionError, http.client.HTTPException, ssl.SSLError) as error:
        raise _Broken(f'the connection broke ({type(error).__name__}: {error})') from error
    except OSError as error:
        if error.errno not in _OF_THE_NETWORK:
            raise
        raise _Broken(f'the connection broke ({error.strerror})') from error


def _receive(
    answer: http.client.HTTPResponse,
    part: _Part,
    start: int,
    total: int | None,
    show: Callable[[int, int | None], None],
) -> None:
    """Append the body to the part; the length must be the announced one."""
    done = start
    with open(part.path, 'ab') as file:
        while block := answer.read(_BLOCK):
            file.write(block)
            done += len(block)
            show(done, total)
        os.fsync(file.fileno())
    # http.client does not tell a connection that was closed early from the end of the body.
    if total is not None and done < total:
        raise _Broken(f'the connection was closed after {done} of {total} bytes')


def _content_range(text: str) -> tuple[int | None, int | None]:
    match = re.fullmatch(r'bytes (\d+)-\d+/(\d+|\*)', text.strip())
    if not match:
        return None, None
    return int(match[1]), None if match[2] == '*' else int(match[2])


def _length(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _check_space(path: Path, total: int | None, start: int) -> None:
    if total is not None and shutil.disk_usage(path.parent).free < total - start:
        raise _no_space(path, total, start)


def _no_space(path: Path, total: int | None, start: int) -> DownloadError:
    free = shutil.disk_usage(path.parent).free / 2**20
    size = 'the file' if total is None else f'{(total - start) / 2**20:.0f} MiB'
    return DownloadError(
        f'{path.parent}: no space for {size} ({free:.0f} MiB free). Make room, or set TORCH_HOME '
        'to a folder on another disk.'
    )


@contextlib.contextmanager
def _meter(name: str, progress: bool | None) -> Iterator[Callable[[int, int | None], None]]:
    """A bar on a terminal, nothing elsewhere."""
    if progress or (progress is None and sys.stderr.isatty()):
        from rich.console import Console
        from rich.progress import DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

        columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task(name, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    yield lambda done, total: None


def _log(text: str, level: int = logging.INFO) -> None:
    print_log(text, logger='current', level=level)
