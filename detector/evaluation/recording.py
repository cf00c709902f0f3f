"""A video of pictures: OpenCV only."""

import os
from pathlib import Path

import cv2
import numpy as np

from detector.config.errors import UserError


class Recording:
    """Writes RGB frames (H, W, 3) of one size into an mp4 file, which gets its name when all of
    them are in it. The codec leaves out the last row and column of an odd number."""

    def __init__(self, path: Path, rate: float) -> None:
        """`rate`: frames per second."""
        self.path, self.rate, self.frames = path, rate, 0
        self.partial = path.with_name(f".{path.stem}.partial.mp4")
        self.writer: cv2.VideoWriter | None = None

    def add(self, frame: np.ndarray) -> None:
        if self.writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            codec, size = cv2.VideoWriter.fourcc(*"mp4v"), (frame.shape[1], frame.shape[0])
            self.writer = cv2.VideoWriter(str(self.partial), codec, self.rate, size)
            if not self.writer.isOpened():
                raise UserError(
                    f"{self.path}: OpenCV cannot write an mp4 file of {size[0]} x {size[1]} pixels "
                    "there"
                )
        self.writer.write(frame[..., ::-1])
        self.frames += 1

    def close(self) -> None:
        """UserError where not all frames arrived: OpenCV says nothing of a full disk."""
        if self.writer is None:
            return
        self.writer.release()
        self.writer = None
        written = int(cv2.VideoCapture(str(self.partial)).get(cv2.CAP_PROP_FRAME_COUNT))
        if written < self.frames:
            self.partial.unlink(missing_ok=True)
            raise UserError(
                f"{self.path}: only {max(0, written)} of {self.frames} frames could be written: "
                "free some space, or name another folder"
            )
        os.replace(self.partial, self.path)
