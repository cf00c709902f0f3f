"""Downloads from a server of this machine that breaks off, lies and forgets."""

import errno
import hashlib
import http.server
import io
import random
import shutil
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import NamedTuple

import pytest

from data import DataError
from data import download as data_download
from data.download import Archive, unpack
from scripts import download

Capture = pytest.CaptureFixture[str]


class Behavior:
    """What the server does; every request is recorded by the first byte that is asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.starts: list[int] = []
        self.break_after: int | None = None  # bytes of an answer
        self.ranges = True
        self.lie = 0  # so many bytes more are promised than there are
        self.busy: set[int] = set()  # places of the requests that are answered by 503


class Handler(http.server.BaseHTTPRequestHandler):
    behavior: Behavior

    def do_GET(self) -> None:
        behavior, body = self.behavior, self.behavior.files.get(self.path.lstrip("/"))
        if body is None:
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        behavior.starts.append(start)
        if len(behavior.starts) in behavior.busy:
            self.send_error(503)
            return
        if start and start >= len(body) and behavior.ranges:
            self.send_error(416)
            return
        resumed = bool(asked) and behavior.ranges
        body = body[start:] if resumed else body
        self.send_response(206 if resumed else 200)
        self.send_header("Content-Length", str(len(body) + behavior.lie))
        self.end_headers()
        self.wfile.write(body[: behavior.break_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Behavior]:
    monkeypatch.setattr(data_download, "WAIT", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = type("Bound", (Handler,), {})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        handler.behavior = Behavior(f"http://127.0.0.1:{running.server_port}")  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield handler.behavior  # type: ignore[attr-defined]
        running.shutdown()
        thread.join()


def make_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


FILES = {"VOCdevkit/VOC2007/a.txt": b"a" * 3000, "VOCdevkit/VOC2007/JPEGImages/b.jpg": b"b" * 900}
TAR = make_tar(FILES)


@pytest.fixture
def voc(server: Behavior, monkeypatch: pytest.MonkeyPatch) -> Behavior:
    """The server has voc2007, in one small archive."""
    server.files["x.tar"] = TAR
    archive = Archive(
        "http://unreachable.invalid/x.tar", hashlib.md5(TAR).hexdigest(), "VOCdevkit/"
    )
    monkeypatch.setattr(download, "ARCHIVES", {"voc2007": [archive], "voc2012": [archive]})
    return server


def run(server: Behavior, folder: Path, *words: str) -> None:
    download.main(["voc2007", "--to", str(folder), "--mirror", f"{server.url}/", *words])


def failure(server: Behavior, folder: Path, capsys: Capture) -> str:
    with pytest.raises(SystemExit) as ending:
        run(server, folder)
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("error: ")
    return line


def assert_complete(folder: Path) -> None:
    assert (folder / "VOC2007" / "a.txt").read_bytes() == b"a" * 3000
    assert (folder / "VOC2007" / "JPEGImages" / "b.jpg").read_bytes() == b"b" * 900
    assert not list(folder.rglob("*.part"))
    assert not (folder / "x.tar").exists()


def test_a_data_set_lies_where_configs_look_and_is_not_fetched_twice(
    voc: Behavior, tmp_path: Path, capsys: Capture
) -> None:
    run(voc, tmp_path)
    assert_complete(tmp_path)
    assert "x.tar: 2 files written, 0 were there" in capsys.readouterr().out
    voc.files.clear()
    run(voc, tmp_path)
    assert "x.tar was unpacked before" in capsys.readouterr().out


def test_a_broken_connection_is_taken_up_where_it_broke(voc: Behavior, tmp_path: Path) -> None:
    voc.break_after = 4000
    run(voc, tmp_path)
    assert_complete(tmp_path)
    assert voc.starts == [0, *range(0, len(TAR), 4000)]  # the first asks for the length


def test_what_passes_is_waited_for(
    voc: Behavior, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy server, and a network that is gone while bytes are read."""
    failing, original = [OSError(errno.EHOSTUNREACH, "No route")], HTTPResponse.read

    def read(response: HTTPResponse, count: int) -> bytes:
        if failing:
            raise failing.pop()
        return original(response, count)

    monkeypatch.setattr(HTTPResponse, "read", read)
    voc.busy = {2, 3}
    run(voc, tmp_path)
    assert not failing
    assert voc.starts == [0] * 5  # length, busy, busy, unreachable, all
    assert_complete(tmp_path)
    voc.busy = set(range(99))
    line = failure(voc, tmp_path / "new", capsys)
    assert "x.tar: the server answers 503 Service Unavailable: check the connection" in line


def test_a_file_in_the_place_of_the_folder_is_one_line(
    voc: Behavior, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("mine")
    assert "file: File exists; name another place" in failure(voc, tmp_path / "file", capsys)


def test_an_interrupted_download_goes_on(voc: Behavior, tmp_path: Path) -> None:
    (tmp_path / "x.tar.part").write_bytes(TAR[:1234])
    run(voc, tmp_path)
    assert voc.starts == [0, 1234]
    assert_complete(tmp_path)


def test_a_server_without_ranges_begins_anew(voc: Behavior, tmp_path: Path) -> None:
    voc.ranges = False
    (tmp_path / "x.tar.part").write_bytes(b"?" * 1234)
    run(voc, tmp_path)
    assert_complete(tmp_path)


def test_a_server_that_promises_more_than_it_has_is_left(
    voc: Behavior, tmp_path: Path, capsys: Capture
) -> None:
    voc.lie = 7
    line = failure(voc, tmp_path, capsys)
    assert f"it has {len(TAR)} bytes and promised {len(TAR) + 7}" in line
    assert "are kept, the same command goes on" in line
    assert (tmp_path / "x.tar.part").read_bytes() == TAR
    voc.lie = 0
    run(voc, tmp_path)
    assert_complete(tmp_path)


def test_a_server_that_promises_less_gives_a_damaged_file(
    voc: Behavior, tmp_path: Path, capsys: Capture
) -> None:
    voc.lie = -512
    assert "is damaged or another file: its md5 is" in failure(voc, tmp_path, capsys)
    assert not list(tmp_path.rglob("*"))  # so that the next attempt begins anew


def test_no_such_file_and_no_server_are_one_line(
    voc: Behavior, tmp_path: Path, capsys: Capture
) -> None:
    voc.files.clear()
    line = failure(voc, tmp_path / "new", capsys)
    assert "/x.tar: the server answers 404 Not Found: name another by --mirror" in line
    voc.url = "http://127.0.0.1:9"  # nobody answers there
    line = failure(voc, tmp_path / "new", capsys)
    assert "127.0.0.1:9/x.tar cannot be reached ([Errno 111] Connection refused)" in line
    assert "check the connection, or name a server by --mirror (--help has some)" in line
    voc.url = "nowhere"
    assert "--mirror begins with http://" in failure(voc, tmp_path / "new", capsys)
    assert not (tmp_path / "new").exists()


def test_the_disk_is_asked_first(
    voc: Behavior, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2 * len(TAR) - 1))
    assert "make space, or choose another --to" in failure(voc, tmp_path / "new", capsys)
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(2 * len(TAR)))
    run(voc, tmp_path / "new")


def test_an_archive_that_is_there_is_taken_and_stays(voc: Behavior, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(TAR)
    voc.files.clear()
    run(voc, tmp_path)
    assert (tmp_path / "VOC2007" / "a.txt").is_file()
    assert (tmp_path / "x.tar").read_bytes() == TAR


def test_an_archive_of_the_user_that_is_wrong_stays(
    voc: Behavior, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "x.tar").write_bytes(b"mine")
    assert "is damaged or another file" in failure(voc, tmp_path, capsys)
    assert (tmp_path / "x.tar").read_bytes() == b"mine"


def test_files_that_are_there_stay(voc: Behavior, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "VOC2007").mkdir()
    path = tmp_path / "VOC2007" / "a.txt"
    path.write_bytes(b"A" * 3000)
    run(voc, tmp_path)
    assert path.read_bytes() == b"A" * 3000
    assert "1 files written, 1 were there" in capsys.readouterr().out
    path.write_bytes(b"mine")
    (tmp_path / ".x.tar.unpacked").unlink()
    line = failure(voc, tmp_path, capsys)
    assert f"{path} is there and is not that of" in line
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../out.txt", "VOCdevkit/../../out.txt", "/out.txt", "link/x"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_nothing_is_written_outside(kind: str, name: str, tmp_path: Path) -> None:
    folder, path = tmp_path / "in", tmp_path / "archive"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    if kind == "tar":
        path.write_bytes(make_tar({name: b"x"}))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match="would be written outside of"):
        unpack(path, folder)
    assert set(tmp_path.rglob("*")) == before


def test_links_in_an_archive_are_left_out(tmp_path: Path) -> None:
    link = tarfile.TarInfo("passwords")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(tmp_path / "archive", "w") as archive:
        archive.addfile(link)
    assert unpack(tmp_path / "archive", tmp_path / "in") == (0, 0)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_damaged_zip_is_told_and_leaves_no_half_file(kind: int, tmp_path: Path) -> None:
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("train2017/a.jpg", random.Random(0).randbytes(1000).hex())
    content = bytearray(path.read_bytes())
    content[200:210] = b"\xff" * 10
    path.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        unpack(path, tmp_path / "in")
    assert not (tmp_path / "in" / "train2017" / "a.jpg").exists()


def test_the_help_has_a_mirror_of_every_data_set(capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        download.main(["--help"])
    shown = capsys.readouterr().out
    assert data_download.MIRRORS.keys() == data_download.ARCHIVES.keys()
    assert all(f"--mirror {mirror}\n" in shown for mirror in data_download.MIRRORS.values())
