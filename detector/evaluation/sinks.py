"""Where detections go: a folder of pictures and a table, or a pipe."""

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from detector.config.errors import UserError
from detector.config.files import RECORD, Outputs, safe_name, write
from detector.evaluation.drawing import contact_sheet, draw, encode, side_by_side
from detector.evaluation.formats import LABELS, Seen, render, rows_of
from detector.evaluation.recording import Recording

ON_SHEET = 24
SHEET = "sheet.png"
CROPS = "crops"
CONTEXT = 0.1  # of its sides, around an object that is cut out


class Lines:
    """A line of JSON per object on stdout, at once."""

    def __init__(self, classes: Sequence[str], ids: Sequence[int] | None) -> None:
        self.classes, self.ids = classes, ids
        self.images = self.objects = 0

    def add(self, seen: Seen, image: np.ndarray) -> None:
        self.images += 1
        for row in rows_of(seen, self.classes, self.ids):
            print(json.dumps(row))
            self.objects += 1
        sys.stdout.flush()

    def close(self) -> None:
        pass


class Folder:
    """Pictures and videos with their boxes, crops if asked for, the table, and a sheet of those
    that have objects of a data set.

    Args:
        out: the folder. Files of it that this did not write are never replaced: UserError.
        expected: the pictures and videos that will come, with what is known of them.
        classes: their names.
        ids: the category id of every class, of a known data set.
        kind: of the table, one of FORMATS.
        crops: whether every object is cut out, to crops/CLASS/NAME_NUMBER.jpg.
    """

    def __init__(
        self,
        out: Path,
        expected: Sequence[Seen],
        classes: Sequence[str],
        ids: Sequence[int] | None,
        kind: str,
        crops: bool,
    ) -> None:
        self.out, self.classes, self.ids = out, classes, ids
        self.kind, self.crops = kind, crops
        self.outputs = Outputs(out / RECORD)
        self.everything: list[Seen] = []
        self.sheet: list[np.ndarray] = []
        self.recording: Recording | None = None
        self.numbers: Counter[str] = Counter()  # of crops, by the name of their picture
        for folder in [*([CROPS] if crops else []), *([LABELS] if kind == "yolo" else [])]:
            if os.path.lexists(out / folder):  # what is of another score could not be told apart
                raise UserError(f"{out / folder} exists: choose another --out, or move it away")
        tables = render(kind, expected, classes, ids)
        names = [seen.output for seen in expected]
        self.outputs.claim(*(out / name for name in (*names, *tables, SHEET)))

    @property
    def images(self) -> int:
        return len(self.everything)

    @property
    def objects(self) -> int:
        return sum(len(seen.marks.labels) for seen in self.everything)

    def add(self, seen: Seen, image: np.ndarray) -> None:
        if seen.truth is None:
            picture = draw(image, seen.marks, self.classes)
        else:
            picture = side_by_side(image, seen.truth, seen.marks, self.classes, title=seen.name)
            self.sheet += [picture] if len(self.sheet) < ON_SHEET else []
        path = self.out / seen.output
        if seen.frame is None:
            write(path, encode(picture, path.suffix))
        else:
            if self.recording is None or seen.frame == 0:
                self._end_video()
                self.recording = Recording(path, seen.rate)
            self.recording.add(picture)
        if self.crops:
            self._cut_out(seen, image)
        self.everything.append(seen)

    def _cut_out(self, seen: Seen, image: np.ndarray) -> None:
        height, width = seen.size
        stem = str(PurePosixPath(seen.output).with_suffix(""))
        for box, label in zip(seen.marks.boxes.tolist(), seen.marks.labels.tolist(), strict=True):
            left, top, right, bottom = box
            dx, dy = CONTEXT * (right - left), CONTEXT * (bottom - top)
            columns = _span(left - dx, right + dx, width)
            rows = _span(top - dy, bottom + dy, height)
            self.numbers[stem] += 1
            name = f"{stem}_{self.numbers[stem]:04d}.jpg"
            folder = self.out / CROPS / safe_name(self.classes[label]).replace("/", "_")
            write(folder / name, encode(image[rows, columns], ".jpg"))

    def _end_video(self) -> None:
        if self.recording is not None:
            recording, self.recording = self.recording, None
            recording.close()

    def close(self) -> None:
        """Writes the table of what was detected so far, and ends what is open."""
        try:
            tables = render(self.kind, self.everything, self.classes, self.ids)
            for name, content in tables.items():
                write(self.out / name, content)
            if self.sheet:
                write(self.out / SHEET, encode(contact_sheet(self.sheet), ".png"))
        finally:
            self._end_video()


def _span(low: float, high: float, extent: int) -> slice:
    """The pixels from low to high, of `extent`: one of them at least."""
    start = min(max(0, int(low)), extent - 1)
    return slice(start, max(start + 1, min(extent, int(high) + 1)))
