"""Weights on the Hugging Face hub: ``hf://owner/name[@revision][:file]``, read and uploaded."""

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from mmmask3d.checkpoints.download import DownloadError, file_sha256, split_sha256
from mmmask3d.checkpoints.files import INDEX_SUFFIX, CheckpointError, index_of_shards

_REPOSITORY = re.compile(r'[\w.-]+/[\w.-]+')
_LOCATION = re.compile(rf'hf://({_REPOSITORY.pattern})(?:@([\w./-]+))?(?::([^:]+))?')
# The first kind that the repository has is taken.
_KINDS = (INDEX_SUFFIX, '.safetensors', '.pth', '.bin')


class UploadError(OSError):
    """The hub does not take files; the message says why and what to do."""


def hub_file(location: str) -> Path:
    """Local file of a hub location, downloaded to the hub's own cache (``HF_HOME``) if need be.

    Beside it are the other files of a sharded checkpoint, and ``config.json`` where there is one.

    Args:
        location: Without a revision the newest is taken; without a file the only one with weights.
            ``#sha256=<64 hexadecimal digits>`` may follow.

    Raises:
        DownloadError: ``huggingface_hub`` is not installed, the location is none, the hub refuses,
            or the file has another hash.
    """
    hub = _package(location, DownloadError)
    address, digits = split_sha256(location)
    match = _LOCATION.fullmatch(address)
    if not match:
        raise DownloadError(f'{location}: expected hf://owner/name[@revision][:file].')
    name, revision, file = match.groups()
    try:
        file = file or _only_weights(location, hub.list_repo_files(name, revision=revision))
        path = Path(hub.hf_hub_download(name, file, revision=revision))
        if file.endswith(INDEX_SUFFIX):
            for shard in index_of_shards(str(path)):
                hub.hf_hub_download(name, str(Path(file).with_name(shard)), revision=revision)
        # Says what no tensor does (heads, eps, activation); most repositories of others have one.
        with suppress(hub.errors.EntryNotFoundError):
            hub.hf_hub_download(name, str(Path(file).with_name('config.json')), revision=revision)
    except (DownloadError, CheckpointError):
        raise
    except Exception as error:  # of the hub's httpx too, whose name differs between versions
        raise DownloadError(
            f'{location}: the hub does not give it ({_told(error)}). Check the name, log in with '
            '`hf auth login` where it is private, or give a local file.'
        ) from error
    if digits is not None and (found := file_sha256(path)) != digits:
        raise DownloadError(
            f'{location}: the sha256 of the file is {found}, but {digits} was asked for. The file '
            'was changed, or the hash is of another one. Name a revision, or another hash.'
        )
    return path


def upload_files(repository: str, files: Mapping[str, bytes], message: str) -> str:
    """Put files into a repository of the hub, all in one commit or none; made where there is none.

    Args:
        repository: ``owner/name``.
        files: Content by name in the repository; files of these names are replaced.
        message: Of the commit.

    Returns:
        Address of the commit.

    Raises:
        UploadError: ``huggingface_hub`` is not installed, the name is none, or the hub refuses.
    """
    check_repository(repository)
    hub = _package(repository, UploadError)
    api = hub.HfApi()
    try:
        api.create_repo(repository, exist_ok=True)
        added = [hub.CommitOperationAdd(name, content) for name, content in files.items()]
        return str(api.create_commit(repository, added, commit_message=message).commit_url)
    except Exception as error:
        raise UploadError(
            f'{repository}: the hub does not take the files ({_told(error)}). Log in with `hf auth '
            'login` as somebody who may write there, or set HF_TOKEN.'
        ) from error


def check_repository(name: str) -> None:
    """Refuse what is no name of a repository, before any work.

    Raises:
        UploadError: It is not ``owner/name``.
    """
    if not _REPOSITORY.fullmatch(name):
        raise UploadError(f'{name}: expected the name of a repository on the hub, owner/name.')


def _package(wanted: str, kind: type[OSError]) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise kind(
            f"{wanted}: needs huggingface_hub, which is not installed: pip install 'mmmask3d[hub]'"
        ) from error
    return huggingface_hub


def _told(error: Exception) -> str:
    return f'{type(error).__name__}: {(str(error).strip().splitlines() or ["no detail"])[0]}'


def _only_weights(location: str, files: list[str]) -> str:
    for kind in _KINDS:
        found = [file for file in files if file.endswith(kind)]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise DownloadError(
        f'{location}: expected one file of weights there, found {", ".join(found) or "none"}. Name '
        'it: hf://owner/name:file.'
    )
