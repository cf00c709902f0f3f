"""Video files and cameras, read frame by frame."""

import re
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from data import DataError

SUFFIXES = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg")
RATE = 25.0  # frames per second where nothing says so


def is_video(place: str | Path) -> bool:
    """Whether it names a video file, or a camera as camera:0."""
    return Path(place).suffix.lower() in SUFFIXES or camera_number(place) is not None


def camera_number(place: str | Path) -> int | None:
    found = re.fullmatch(r"camera:(\d+)", str(place))
    return int(found[1]) if found else None


def is_utf8(text: str) -> bool:
    return text == text.encode(errors="replace").decode()


class Video:
    """An open video: `rate`, frames per second; `count`, of its frames by its header, 0 where it
    does not say. Iterating gives the frames that can be decoded, upright, RGB uint8 (H, W, 3); a
    camera's have no end.
    Raises DataError for what OpenCV cannot open."""

    def __init__(self, place: str | Path) -> None:
        number = camera_number(place)
        if not is_utf8(str(place)):  # such a name crashes OpenCV
            raise DataError(f"{str(place)!r} has a name that is not UTF-8: rename it")
        self.capture = cv2.VideoCapture(str(place) if number is None else number)
        if not self.capture.isOpened():
            problem = "is no video that OpenCV can read" if number is None else "does not answer"
            raise DataError(f"{place} {problem}")
        rate = self.capture.get(cv2.CAP_PROP_FPS)
        self.rate = rate if 0 < rate < 1000 else RATE  # nan and 0 are no rates
        self.count = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.is_camera = number is not None

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            while True:
                decoded, frame = self.capture.read()
                if not decoded:
                    return
                yield np.ascontiguousarray(frame[..., ::-1])
        finally:
            self.capture.release()
