"""A video that is written is whole, or it is not there."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from detector.config.errors import UserError
from detector.evaluation.recording import Recording


def frames(count: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), (40 * k, 100, 0), np.uint8) for k in range(count)]


def test_frames_are_those_that_were_added_in_order_and_colors(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "deep" / "a.mp4", 7.0)
    for frame in frames(5):
        recording.add(frame)
    assert not (tmp_path / "deep" / "a.mp4").exists()
    recording.close()
    recording.close()  # does nothing
    video = cv2.VideoCapture(str(tmp_path / "deep" / "a.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 7
    for frame in frames(5):
        _, read = video.read()
        assert np.abs(read[..., ::-1].astype(int) - frame).max() < 12  # the codec loses a little
    assert not video.read()[0]
    assert os.listdir(tmp_path / "deep") == ["a.mp4"]


def test_a_video_that_the_disk_did_not_take_is_an_error(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "a.mp4", 7.0)
    for frame in frames(3):
        recording.add(frame)
    recording.frames += 1  # as if one could not be written, of which OpenCV only logs
    with pytest.raises(UserError, match="only 3 of 4 frames could be written: free some space"):
        recording.close()
    assert os.listdir(tmp_path) == []


def test_nothing_to_write_is_no_video(tmp_path: Path) -> None:
    Recording(tmp_path / "a.mp4", 7.0).close()
    assert os.listdir(tmp_path) == []
