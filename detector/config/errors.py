"""A user's mistakes: one line that says what is wrong, where, and how to mend it; exit status 2."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# module -> the extra of pyproject.toml that installs it; all others are in requirements.txt
EXTRAS = {"faster_coco_eval": "fast", "matplotlib": "plots", "imagehash": "check"}
EXTRAS |= {"onnx": "export", "onnxscript": "export", "onnxruntime": "export"}


def not_installed(name: str | None) -> str:
    """What a user is told about a missing package, `name` being that or a module in it."""
    extra = EXTRAS.get((name or "").partition(".")[0])
    what = f"-e '.[{extra}]'" if extra else "-r requirements.txt"
    return (
        f"{name} is not installed for {sys.executable}: activate the environment "
        f"(. .venv/bin/activate), or pip install {what}"
    )


# What a disk may answer: full, no right to write, a folder where a file should be ...
FULL, FORBIDDEN = (errno.ENOSPC, errno.EDQUOT), (errno.EACCES, errno.EPERM, errno.EROFS)
FOLDERS = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST)
DISK = (*FULL, *FORBIDDEN, *FOLDERS, errno.ENAMETOOLONG, errno.EIO)


def describe_disk_error(error: OSError, path: object = None) -> str:
    """One line for an error of the file system: which file, why, what to do."""
    name = path or error.filename or "a file"
    reason = error.strerror or str(error)
    if error.errno in FULL:
        return f"cannot write {name}: {reason}; make space, then go on with --resume"
    if error.errno in FORBIDDEN:
        return f"cannot use {name}: {reason}; allow it, or name another place"
    return f"cannot use {name}: {reason}; name another place"


class UserError(ValueError):
    """A mistake of the user's. The message is one line: what, where, how to mend."""

    user_error = True


@contextmanager
def locate_errors(key: str, origin: str) -> Iterator[None]:
    """Turns a ValueError into a UserError that names the option and where its value comes from."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{key} ({origin}): {error}") from None


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the program on a user's mistake, with one line on stderr and exit status 2.

    A user's mistake is an error with the attribute `user_error`, a package that is not installed,
    or a disk that is full or forbidden. Other errors pass, with their traceback. A DataLoader
    worker hands on its error as the text of a traceback: only the last line, the message, is
    printed. Ctrl-C ends silently with status 130, and so does a closed pipe (`| head`) with 141.
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
    except OSError as error:
        if error.errno not in DISK:
            raise
        print("error:", describe_disk_error(error), file=sys.stderr)
        raise SystemExit(2) from None
    except Exception as error:
        if not getattr(error, "user_error", False):
            raise
        *traceback, line = str(error).strip().splitlines() or [""]
        message = re.sub(r"^[\w.]+Error: ", "", line) if traceback else line
        print("error:", message, file=sys.stderr)
        raise SystemExit(2) from None
