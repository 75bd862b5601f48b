"""One kind of error for mistakes in what the user gave: a single clear line, exit status 2."""

import argparse
import errno
import functools
import os
import sys
from collections.abc import Callable
from typing import NoReturn

# Whatever was asked for, these come from the disk.
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class InputError(Exception):
    """Bad input. The message is one line: the file or parameter, what is wrong with it, and the fix."""


class OneLineParser(argparse.ArgumentParser):
    """A command's options; a mistake in them is told in one line, as every other one."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong, without its usage."""
        raise InputError(f"{message}; `{self.prog} --help` shows the options")


def command(main: Callable[..., int | None]) -> Callable[..., None]:
    """Turn a main function into a command that reports bad input, or a disk's error, as one line and exits with 2."""

    @functools.wraps(main)
    def wrapped(*arguments, **options) -> None:
        try:
            sys.exit(main(*arguments, **options) or 0)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except OSError as error:
            if (told := _told(error)) is None:
                raise
            print(f"error: {told}", file=sys.stderr)
            sys.exit(2)

    return wrapped


def _told(error: OSError) -> str | None:
    """Return a disk's error as one line; None where it may be a mistake of ours."""
    if error.errno not in DISK_ERRORS:
        return None
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    fix = "make room and run again" if full else "fix the disk, or name another place"
    return f"{error.filename or 'the disk'}: {os.strerror(error.errno)}; {fix}"
