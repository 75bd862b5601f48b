"""One kind of error for mistakes in what the user gave: a single clear line, exit status 2."""

import functools
import sys
from collections.abc import Callable


class InputError(Exception):
    """Bad input. The message is one line: the file or parameter, what is wrong with it, and the mend."""


def command(main: Callable[..., int | None]) -> Callable[..., None]:
    """Turn a main function into a command that reports an `InputError` as one line and exits with 2."""

    @functools.wraps(main)
    def wrapped(*arguments, **options) -> None:
        try:
            sys.exit(main(*arguments, **options) or 0)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)

    return wrapped
