"""Weights on the Hugging Face hub: ``hf://owner/name[@revision][:file]``."""

import re
from pathlib import Path

from mmmask3d.checkpoints.download import DownloadError, file_sha256, split_sha256
from mmmask3d.checkpoints.files import INDEX_SUFFIX, CheckpointError, index_of_shards

_LOCATION = re.compile(r'hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?(?::([^:]+))?')
# The first kind that the repository has is taken.
_KINDS = (INDEX_SUFFIX, '.safetensors', '.pth', '.bin')


def hub_file(location: str) -> Path:
    """Local file of a hub location, downloaded to the hub's own cache (``HF_HOME``) if need be.

    Args:
        location: Without a revision the newest is taken; without a file the only one with weights.
            ``#sha256=<64 hexadecimal digits>`` may follow.

    Raises:
        DownloadError: ``huggingface_hub`` is not installed, the location is none, the hub refuses,
            or the file has another hash.
    """
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise DownloadError(
            f'{location}: needs huggingface_hub, which is not installed: pip install '
            "'mmmask3d[hub]'"
        ) from error
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
                hub.hf_hub_download(name, shard, revision=revision)
    except (DownloadError, CheckpointError):
        raise
    except Exception as error:  # of the hub's httpx too, whose name differs between versions
        detail = (str(error).strip().splitlines() or ['no detail'])[0]
        raise DownloadError(
            f'{location}: the hub does not give it ({type(error).__name__}: {detail}). Check the '
            'name, log in with `hf auth login` where it is private, or give a local file.'
        ) from error
    if digits is not None and (found := file_sha256(path)) != digits:
        raise DownloadError(
            f'{location}: the sha256 of the file is {found}, but {digits} was asked for. The file '
            'was changed, or the hash is of another one. Name a revision, or another hash.'
        )
    return path


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
