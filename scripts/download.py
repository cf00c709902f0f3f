"""Fetch VOC or COCO:  python scripts/download.py voc2007 --to datasets/VOCdevkit"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data import DataError
from data.download import ARCHIVES, MIRRORS, Archive, check, check_space, fetch, length_of, unpack
from detector.config.command_line import parse_options
from detector.config.errors import one_line_errors
from detector.config.types import Option

USAGE = """python scripts/download.py voc2007 --to datasets/VOCdevkit
       python scripts/download.py voc2012 --to datasets/VOCdevkit
       python scripts/download.py coco2017 --to datasets/coco

puts a data set where the configs look for it. An interrupted download goes on by the same command.
VOC's archives are compared with their md5; of COCO none is published, but a zip has a checksum of
every file. An archive that lies in DIR already is taken instead, a file that is there is kept. The
servers are host.robots.ox.ac.uk (often down) and images.cocodataset.org; --mirror names another
folder with the same archives. Others keep these (not tried by us; checked in the same way):

""" + "\n".join(f"  {name:<8}  --mirror {mirror}" for name, mirror in MIRRORS.items())
PROGRAM_OPTIONS = {
    "dataset": Option(Literal["voc2007", "voc2012", "coco2017"], ..., ""),
    "--to": Option(str, ..., "folder to put it into"),
    "--mirror": Option(str | None, None, "address of a folder that has the archives"),
}
UNPACKED = 2  # an archive and its content, which is compressed already, need twice its size


def download(archives: Sequence[Archive], folder: Path, mirror: str | None) -> None:
    """What is not there yet: fetched, checked and unpacked, one archive after the other."""
    from tqdm import tqdm

    to_fetch: dict[Archive, tuple[str, int]] = {}  # its address and length
    lying = 0  # bytes of archives that are there and are to be unpacked
    to_unpack = [x for x in archives if not (folder / f".{x.name}.unpacked").exists()]
    for archive in to_unpack:
        if not (folder / archive.name).exists():
            url = f"{mirror.rstrip('/')}/{archive.name}" if mirror else archive.url
            to_fetch[archive] = url, length_of(url)
        else:
            lying += (folder / archive.name).stat().st_size
    total = sum(length for _, length in to_fetch.values())
    parts = [folder / f"{archive.name}.part" for archive in to_fetch]
    present = sum(part.stat().st_size for part in parts if part.exists())
    check_space(folder, UNPACKED * total - present + lying)
    with tqdm(total=total or None, unit="B", unit_scale=True, disable=None) as bar:
        for archive in archives:
            path, marker = folder / archive.name, folder / f".{archive.name}.unpacked"
            if archive not in to_unpack:
                tqdm.write(f"{archive.name} was unpacked before (without {marker} it is again)")
                continue
            if archive in to_fetch:
                path = folder / f"{archive.name}.part"
                url, length = to_fetch[archive]
                fetch(url, path, length, bar.update)
            with removed_if_wrong(path, archive in to_fetch):
                check(path, archive)
            written, kept = unpack(path, folder, archive.top)
            marker.touch()
            if archive in to_fetch:
                path.unlink()
            tqdm.write(f"{archive.name}: {written} files written, {kept} were there")


@contextmanager
def removed_if_wrong(path: Path, ours: bool) -> Iterator[None]:
    """What was fetched and is wrong is removed, or it would be there for the next attempt."""
    try:
        yield
    except DataError:
        if ours:
            path.unlink()
        raise


def parse_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """The program's options."""
    options, _ = parse_options(argv, usage=USAGE, program_options=PROGRAM_OPTIONS, sections=())
    return options


def main(argv: Sequence[str] | None = None) -> None:
    with one_line_errors():
        options = parse_arguments(sys.argv[1:] if argv is None else argv)
        download(ARCHIVES[options["dataset"]], Path(options["to"]).expanduser(), options["mirror"])


if __name__ == "__main__":
    main()
