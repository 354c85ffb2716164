"""The error of a frame that cannot be used."""


class FrameError(ValueError):
    """One frame of a data set cannot be used: unreadable file, wrong type, sizes that differ.

    A class of its own so that ``on_error='drop'`` skips bad *frames* only and never hides a
    wrong configuration or a programming error.
    """
