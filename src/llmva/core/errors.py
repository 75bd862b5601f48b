"""One kind of error for mistakes in what the user gave: a single clear line, exit status 2."""

import argparse
import errno
import functools
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

# Whatever was asked for, these come from the disk: the first are of a full one.
FULL_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK_ERRORS = (*FULL_DISK_ERRORS, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
# As a shell says of what Ctrl-C has ended.
INTERRUPTED = 130


class InputError(Exception):
    """Bad input. The message is one line: the file or parameter, what is wrong with it, and the fix."""

    # Of several mistakes, each has a line.
    has_lines = False


def one_of(name: str, *given: str | None) -> str | None:
    """Return what was given for something that can be named in several ways, or raise an `InputError` for two."""
    wanted = list(dict.fromkeys(value for value in given if value))
    if len(wanted) > 1:
        raise InputError(f"{name}: is given twice, as {' and '.join(wanted)}; write one")
    return wanted[0] if wanted else None


class OneLineParser(argparse.ArgumentParser):
    """A command's options; a mistake in them becomes one line, as every other one."""

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> tuple:
        """Parse as argparse does; an argument of nothing, as of a shell's variable that is not set, is a mistake."""
        given = [str(word) for word in (sys.argv[1:] if args is None else args)]
        for before, word in zip(["", *given], given, strict=False):
            option, sign, value = word.partition("=")
            if not word.strip() or (option.startswith("--") and sign and not value.strip()):
                name = option if sign else before if before.startswith("--") else "an argument"
                self.error(f"{name}: is empty; write a value, or leave it out")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong, without its usage."""
        raise InputError(f"{message}; `{self.prog} --help` shows the options")


def command(main: Callable[..., int | None]) -> Callable[..., None]:
    """Turn a main function into a command that reports bad input, or a disk's error, as one line and exits with 2."""

    @functools.wraps(main)
    def wrapped(*arguments, **options) -> None:
        try:
            _require_roots()
            sys.exit(main(*arguments, **options) or 0)
        except KeyboardInterrupt:
            # Libraries would still log what the stop has cut off.
            logging.disable()
            print("stopped; run it again, and it goes on where it was", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except InputError as error:
            lines = str(error).split("\n") if error.has_lines else [str(error)]
        except OSError as error:
            if error.errno not in DISK_ERRORS:
                raise
            lines = [_describe(error)]
        print("error: " + "\n".join(map(_without_controls, lines)), file=sys.stderr)
        sys.exit(2)

    return wrapped


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its kind where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _require_roots() -> None:
    # Whatever a command is about, it reads or writes there.
    for name in ("LLMVA_ROOT", "LLMVA_OUT"):
        root = Path(os.environ.get(name) or os.curdir).absolute()
        there = next(place for place in (root, *root.parents) if os.path.lexists(place))
        if not there.is_dir():
            raise InputError(f"{name}: {there} is no folder; name one, or leave {name} out")


def _without_controls(text: str) -> str:
    # Names of files and columns may hold anything, also what a terminal would take for a command.
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _describe(error: OSError) -> str:
    full = error.errno in FULL_DISK_ERRORS
    fix = "make room and run again" if full else "fix the disk, or name another place"
    name = str(error.filename or "the disk")
    return f"{name[:200]}{'...' * (len(name) > 200)}: {os.strerror(error.errno)}; {fix}"
