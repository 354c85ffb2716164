"""Silences messages of the mm packages that appear on every start and that no user can act on.

Nothing else is hidden: each message is named here by its text, with the reason.

- ``Could not import OneDL``: mmpretrain, mmseg and mmdet look for the client of a service that
  is in no package index. They mean to log it for debugging, but name no logger, so it is printed.
- ``Line NMS is not compiled``: an operator of CLRNet, a lane detector, which exists for CUDA only.
  Whoever builds CLRNet without it gets an error from there.
- ``MultiScaleDeformableAttention``: without compiled operators mmcv says that they are missing,
  with them that the class has moved. :mod:`mmmask3d.preflight` says what is missing, and to whom
  it matters.
"""

import logging
import warnings
from typing import Any

import mmengine.logging.logger as mm_logger

_PRINTED = ('Could not import OneDL', 'Could not import OneDL. Skipping OneDL datasets.')
_LOGGED = 'Line NMS is not compiled. Most likely when installing the package cuda was not available'
_WARNED = r'(Fail to import )?``MultiScaleDeformableAttention``'


def _print(*values: Any, **options: Any) -> None:
    if values[:1] not in ((text,) for text in _PRINTED):
        print(*values, **options)


def _handle(logger: mm_logger.MMLogger, record: logging.LogRecord) -> None:
    if not record.getMessage().startswith(_LOGGED):
        logging.Logger.handle(logger, record)


def silence_noise() -> None:
    """Silence the messages in this process; calling it again changes nothing.

    :mod:`mmmask3d.registry` calls it, so that it also holds in worker processes that start from
    nothing and unpickle a data set.
    """
    # `print_log` without a logger calls `print`, which it now finds in its own module.
    setattr(mm_logger, 'print', _print)  # noqa: B010
    # Any instance: the message goes to the newest logger, that of the run.
    setattr(mm_logger.MMLogger, 'handle', _handle)  # noqa: B010
    warnings.filterwarnings('ignore', _WARNED, module=r'mmcv\.cnn\.bricks\.transformer')
