"""What every command does between reading its options and importing the mm packages."""

import functools
import sys
from collections.abc import Callable, Sequence

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


def errors_in_a_line(main: Callable[..., int]) -> Callable[..., int]:
    """Let a command say what went wrong in one line, not in a traceback, and end with code 1."""

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None, prog: str | None = None) -> int:
        try:
            return main(argv, prog)
        except (OSError, KeyError, ValueError, RuntimeError, ImportError) as error:
            print(f'error: {error}', file=sys.stderr)
            return 1

    return run
