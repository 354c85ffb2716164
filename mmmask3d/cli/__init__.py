"""The commands: ``mmmask3d COMMAND``, and the scripts in ``tools/`` of the same functions.

One module a command, each with ``main(argv, prog)``. Importing them needs the standard library
alone, so that help and wrong options are answered at once: a command reads its options first, then
calls :func:`mmmask3d.cli.start.start`, then imports what it runs.
"""
