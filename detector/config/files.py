"""Files that commands write: each whole or not at all, and never over a file that is not theirs."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from detector.config.errors import UserError, describe_disk_error

RECORD = ".outputs.json"  # in a folder of ours: the names of the files that we wrote


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """An OSError of the system becomes a UserError: which file, why, what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(describe_disk_error(error, path)) from None


def write(path: str | Path, content: str | bytes) -> None:
    """A file and its folders, at once: a kill or a full disk leaves the old file or the new one.

    Raises UserError where the system refuses (no space, no right, a folder of that name).
    """
    path = Path(path)
    # file names in a text may be bytes that are not UTF-8: these bytes again
    data = content.encode(errors="surrogateescape") if isinstance(content, str) else content
    with disk_errors(path):
        if path.is_dir():
            raise OSError(errno.EISDIR, "it is a folder", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(
            prefix=f".{path.name}.", suffix=".partial", dir=path.parent
        )
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(partial, 0o666 & ~_umask())
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial)
            raise


def check_writable(folder: Path) -> None:
    """Makes the folder; UserError where nothing can be written into it, so that nobody computes for
    long what cannot be kept."""
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _umask() -> int:
    """The permissions that the user does not give; mkstemp gives to the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, content: Any) -> None:
    """Plain values as JSON, which knows no nan: null stands for it. Lists are on one line."""
    plain = json.loads(json.dumps(content), parse_constant=lambda _: None)
    write(path, json.dumps(plain, indent=None if isinstance(plain, list) else 1))


def read_json(path: str | Path) -> Any:
    """The content of a JSON file that we wrote; UserError where it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged (not JSON): delete it and make it again") from None


class Outputs:
    """Where a command may write: a file that exists is only replaced if the record has it.

    Args:
        record: the file that lists what was written before, such as FOLDER/.outputs.json. None:
            nothing was, so that every existing file is refused.
        flag: the option by which the user chose the place, for the error.
    """

    def __init__(self, record: Path | None, flag: str = "--out") -> None:
        self.record, self.flag = record, flag
        self.names: list[str] = []
        if record is not None and record.is_file():
            with suppress(ValueError):  # a record that is not readable lists nothing
                names = json.loads(record.read_text())
                self.names = names if isinstance(names, list) else []

    def claim(self, *paths: str | Path) -> None:
        """Say which files are going to be written, all of them before the first is.

        Raises UserError for one that exists and is not in the record, and where a folder is in the
        way, or a file in the place of a folder.
        """
        for name in map(os.path.abspath, paths):  # of a/../b the system asks whether a is there
            path = Path(name)
            if path.is_dir():
                raise UserError(f"{self.flag} {path} is a folder: name a file")
            for parent in path.parents:
                if os.path.lexists(parent) and not parent.is_dir():
                    raise UserError(f"{self.flag} {path}: {parent} is a file, not a folder")
            if os.path.lexists(path) and name not in self.names:
                whose = "" if self.record is None else " and was not written by this command"
                raise UserError(
                    f"{path} exists{whose}: choose another {self.flag}, or move it away"
                )
        new = [name for path in paths if (name := os.path.abspath(path)) not in self.names]
        if new and self.record is not None:
            self.names = [*self.names, *new]
            write_json(self.record, self.names)


def was_written(file: Path, folder: Path) -> bool:
    """Whether a file in or below a folder is of an earlier command: the folder's record has it, or
    it lies in a folder below that has a record."""
    if os.path.abspath(file) in Outputs(folder / RECORD).names:
        return True
    between = [parent for parent in file.parents if folder in parent.parents]
    return any((parent / RECORD).is_file() for parent in between)


def safe_name(name: str) -> str:
    """A file name of an annotation as a relative path that stays in the folder it is joined to:
    without drive, root and "..", whichever system wrote it."""
    parts = PureWindowsPath(name).parts if "\\" in name else PurePosixPath(name).parts
    kept = [
        part for part in parts if part not in ("..", ".") and not part.endswith(("/", "\\", ":"))
    ]
    return "/".join(kept) or "unnamed"
