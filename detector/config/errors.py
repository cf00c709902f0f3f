"""Mistakes of the user's: one line that says what, where and how to mend; exit status 2."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def not_installed(name: str | None) -> str:
    """What to do about a package that is missing."""
    return (
        f"{name} is not installed for {sys.executable}: activate the environment "
        "(. .venv/bin/activate), or pip install -r requirements.txt"
    )


class UserError(ValueError):
    """A mistake of the user's. The message is one line: what, where, how to mend."""

    user_error = True


@contextmanager
def placed(key: str, origin: str) -> Iterator[None]:
    """A ValueError becomes a UserError that says of which key, and where the key was set."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{key} ({origin}): {error}") from None


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Mistakes of the user's: one line on stderr, exit status 2. Other errors stay as they are.

    Whatever has the attribute `user_error` counts, and a package that is not installed. A
    DataLoader worker wraps its error into a traceback, of which the last line is the message.
    Ctrl-C is exit status 130 without a word, and so is 141 where nobody reads on (`| head`).
    """
    try:
        yield
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes
        raise SystemExit(141) from None
    except ModuleNotFoundError as error:
        print("error:", not_installed(error.name), file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as error:
        if not getattr(error, "user_error", False):
            raise
        *before, line = str(error).strip().splitlines() or [""]
        print("error:", re.sub(r"^[\w.]+Error: ", "", line) if before else line, file=sys.stderr)
        raise SystemExit(2) from None
