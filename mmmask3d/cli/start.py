"""What every command does between reading its options and importing the mm packages."""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence

from mmmask3d.cli.options import read_overrides
from mmmask3d.preflight import EnvironmentProblem, check_environment


def start(need: Sequence[str] = ()) -> None:
    """Check the environment, then set the process up: quiet imports, checkpoints read safely.

    Args:
        need: See :func:`~mmmask3d.preflight.check_environment`.

    Raises:
        SystemExit: With the list of problems, if the environment cannot run the command.
    """
    try:
        check_environment(need=need)
    except EnvironmentProblem as problem:
        sys.exit(f'error: {problem}')
    from mmmask3d.setup_env import register_all_modules

    register_all_modules(init_default_scope=False)


def command(
    parse_args: Callable[..., argparse.Namespace], tracebacks: bool = False
) -> Callable[[Callable[[argparse.Namespace], int | None]], Callable[..., int]]:
    """Make ``main(argv, prog)`` of the decorated function, which runs a command with its options.

    Args:
        parse_args: Reads the options, before anything heavy is imported; ``--cfg-options`` become
            a dict afterwards.
        tracebacks: Show them. Else an error ends in one line and code 1.
    """

    def decorate(run: Callable[[argparse.Namespace], int | None]) -> Callable[..., int]:
        @functools.wraps(run)
        def main(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
            args = parse_args(argv, prog)
            start()
            if 'cfg_options' in args:
                args.cfg_options = read_overrides(args.cfg_options)
            try:
                return run(args) or 0
            except (OSError, KeyError, ValueError, RuntimeError, ImportError) as error:
                if tracebacks:
                    raise
                print(f'error: {error}', file=sys.stderr)
                return 1

        return main

    return decorate
