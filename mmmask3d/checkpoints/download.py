"""Downloads weights by pooch: once, verified, complete or absent.

A hash is looked for in this order: ``#sha256=<64 hex digits>`` at the end of the URL, and the
digits at the end of the file's name (``...-1a2b3c4d.pth``, the convention of torch.hub and
OpenMMLab). Without any, ``https`` is downloaded with a warning that shows the hash to pin; ``http``
is refused without a complete hash, since anybody on the way could have changed the weights.
"""

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import pooch
import requests
import torch
from mmengine.dist import get_dist_info
from mmengine.logging import print_log

_RETRIED = (429, 500, 502, 503, 504)
_REFUSALS = {401: 'log in first', 403: 'access is refused', 404: 'there is no such file'}


class DownloadError(OSError):
    """A file could not be downloaded or is not what was expected; says why and what to do."""


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


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes."""
    return str(pooch.file_hash(os.fspath(path)))


def cache_folder() -> Path:
    """Where downloads are kept: ``checkpoints`` in torch's hub folder, as mmengine does it.

    That is ``$TORCH_HOME/hub`` if the variable is set, else ``$XDG_CACHE_HOME/torch/hub``, else
    ``~/.cache/torch/hub``.
    """
    return Path(torch.hub.get_dir()) / 'checkpoints'


def cached_path(url: str) -> Path:
    """Where :func:`download` keeps the file of a URL.

    A folder for each URL: files of the same name from two places are two files.
    """
    address, _ = split_sha256(url)
    name = unquote(urlsplit(address).path).rsplit('/', 1)[-1] or 'download'
    key = hashlib.sha256(address.encode()).hexdigest()[:16]
    return cache_folder() / 'mmmask3d' / key / name


def download(url: str, timeout: float = 30.0, retries: int = 3) -> Path:
    """Return the local file of a URL, downloaded if it is not there yet.

    A file that torch or mmengine have downloaded to the same cache is used if its hash is known
    and right. Several processes may ask for the same file: one downloads, the others wait.

    Args:
        url: ``http(s)://``, with or without ``#sha256=``.
        timeout: Seconds without a byte after which an attempt is given up.
        retries: Attempts after the first.

    Raises:
        DownloadError: See the message; nothing is left of the file.
    """
    address, digits = split_sha256(url)
    scheme = urlsplit(address).scheme
    if scheme not in ('http', 'https'):
        raise DownloadError(f'{address}: expected a URL that starts with https:// or http://.')
    if scheme == 'http' and digits is None:
        raise DownloadError(
            f'{address}: refused, because over http anybody on the way can change the weights. Use '
            'https, or give the hash: append #sha256=<64 hexadecimal digits>.'
        )
    target = cached_path(address)
    wanted = digits or _digits_in_name(target.name)
    shared = target.parents[2] / target.name
    if wanted and shared.is_file() and file_sha256(shared).startswith(wanted):
        return shared
    rank = int(os.environ.get('LOCAL_RANK', get_dist_info()[0]))
    getter = pooch.HTTPDownloader(
        progressbar=rank == 0 and sys.stderr.isatty(),
        timeout=timeout,
        hooks={'response': _check_redirection},
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(target.parent, address):
            if not target.is_file() or not file_sha256(target).startswith(wanted or ''):
                _fetch(address, target, wanted, getter, retries)
    except DownloadError:
        raise
    except requests.RequestException as error:
        raise DownloadError(
            f'{address}: {type(error).__name__}, {retries + 1} times: {error}. Without a network, '
            f'put the file at {target}.'
        ) from error
    except OSError as error:
        why = 'no space is left' if error.errno == errno.ENOSPC else error.strerror or error
        raise DownloadError(
            f'{target.parent}: cannot be written ({why}). Make room, or set TORCH_HOME to another '
            'folder.'
        ) from error
    return target


def _digits_in_name(name: str) -> str | None:
    match = re.search(r'-([0-9a-f]{8,64})\.\w+$', name)
    if not match or re.fullmatch(r'(19|20)\d{6}', match[1]):  # a date
        return None
    return match[1]


@contextlib.contextmanager
def _one_at_a_time(folder: Path, address: str) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print_log(f'Waiting for another process that downloads {address}.', logger='current')
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _fetch(
    address: str, target: Path, wanted: str | None, getter: pooch.HTTPDownloader, retries: int
) -> None:
    """Bring the file to ``target`` if its hash is the expected one."""

    def get(url: str, output: Any, puller: Any) -> None:
        try:
            getter(url, output, puller)
        except requests.HTTPError as error:
            if error.response is None or error.response.status_code in _RETRIED:
                raise
            status = error.response.status_code
            why = _REFUSALS.get(status, 'the server refuses')
            raise DownloadError(
                f'{address}: {why} ({status} {error.response.reason}). Open the address in a '
                'browser and check it.'
            ) from error

    for stale in target.parent.iterdir():  # of a call that was killed, or with a wrong hash
        stale.unlink()
    part = target.with_name(f'{target.name}.part')
    try:
        # The hash is checked below: pooch knows no leading digits, and would try a wrong one again.
        puller = pooch.create(
            target.parent,
            base_url='',
            registry={part.name: None},
            urls={part.name: address},
            retry_if_failed=retries,
        )
        puller.fetch(part.name, downloader=get)
        found = file_sha256(part)
        if wanted is None:
            print_log(
                f'{address}: downloaded without a hash to compare with. To pin this very file, '
                f'append #sha256={found}',
                logger='current',
                level=logging.WARNING,
            )
        elif not found.startswith(wanted):
            raise DownloadError(
                f'{address}: the sha256 of the file is {found}, but {wanted} was asked for, by you '
                "or by the digits in the file's name. The file was changed, or the hash is of "
                'another one; nothing was kept. If you trust this file, append '
                f'#sha256={found} to the URL.'
            )
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _check_redirection(response: requests.Response, **kwargs: Any) -> None:
    """Refuse to leave https."""
    target = urljoin(response.url, response.headers.get('Location', ''))
    if urlsplit(response.url).scheme == 'https' != urlsplit(target).scheme:
        raise DownloadError(
            f'{response.url}: refused to follow a redirection from https to {target}. Look up '
            'the present address of the file.'
        )
