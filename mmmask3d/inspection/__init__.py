"""Look at RGB-D frames and check them before anything is trained on them.

``sources`` opens a folder or a config, ``edges`` and ``registration`` decide whether depth lies on
colour, ``measures`` reads one frame, ``duplicates`` compares frames, ``findings`` turns all of it
into errors, warnings and notes, and ``report`` writes them down. The command lines are
``mmmask3d browse`` and ``mmmask3d check``.
"""
