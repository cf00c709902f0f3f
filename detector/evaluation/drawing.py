"""Pictures of boxes, by OpenCV. All images are RGB uint8 (H, W, 3); no argument is changed."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import ceil
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from detector.evaluation.fonts import find_font, special_letters
from detector.postprocess import Detections

# Okabe and Ito's colors, which color-blind readers tell apart, without black: reused every 7.
COLORS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
GRAY = (190, 190, 190)
PAPER, INK = (255, 255, 255), (20, 20, 20)
READABLE = 640  # pixels of the longer side from which names fit beside the objects
FONT = cv2.FONT_HERSHEY_SIMPLEX
LETTERS = 29  # pixels of another font, for capitals as high as those of FONT at scale 1


class Marks(NamedTuple):
    """Boxes (B, 4) xyxy in pixels of the image, labels (B,); negative labels are not drawn.
    `scores` (B,): lower ones are drawn beneath. `ignore` (B,) bool: dashed and gray."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    ignore: np.ndarray | None = None


def draw(
    image: np.ndarray, marks: Marks, class_names: Sequence[str], side: int | None = None
) -> np.ndarray:
    """The image with its boxes, class names and scores.

    The longer side becomes `side` pixels; without it small images are enlarged by a whole factor.
    """
    factor = side / max(image.shape[:2]) if side else max(1, round(READABLE / max(image.shape[:2])))
    canvas = resize(image, factor)
    labels = np.asarray(marks.labels, int)
    ignore = np.zeros(len(labels), bool) if marks.ignore is None else np.asarray(marks.ignore, bool)
    scores = marks.scores if marks.scores is None else np.asarray(marks.scores, float)
    order = np.arange(len(labels)) if scores is None else np.argsort(scores, kind="stable")
    shown = [index for index in order if labels[index] >= 0]
    boxes = np.asarray(marks.boxes, float).reshape(-1, 4) * factor
    boxes = boxes.clip(0, np.tile(canvas.shape[1::-1], 2) - 1).round().astype(int)
    for index in shown:
        color = GRAY if ignore[index] else COLORS[labels[index] % len(COLORS)]
        _outline(canvas, boxes[index], color, bool(ignore[index]))
    for index in shown:  # the text comes last, no line runs through it
        color = GRAY if ignore[index] else COLORS[labels[index] % len(COLORS)]
        text = class_names[labels[index]] + ("" if scores is None else f" {scores[index]:.2f}")
        if text:
            _write(canvas, text, boxes[index], color)
    return canvas


class Line:
    """A line of text: OpenCV's letters, or those of another font where it lacks some.

    `scale`: of OpenCV's font; `thick`: pixels of its strokes.
    """

    def __init__(self, text: str, scale: float, thick: int) -> None:
        text = text.encode(errors="replace").decode()  # bytes of file names crash OpenCV
        special = special_letters(text)
        font = find_font(special) if special else None
        self.font = ImageFont.truetype(font.path, round(LETTERS * scale)) if font else None
        self.text = text if font else "".join("?" if c in special else c for c in text)
        self.scale, self.thick = scale, thick

    def extent(self) -> tuple[int, int, int]:
        """Pixels: its width, and its height above and below the line it stands on."""
        if self.font:
            _, top, right, bottom = self.font.getbbox(self.text, anchor="ls")
            return ceil(right), ceil(-top), ceil(bottom)
        (width, height), below = cv2.getTextSize(self.text, FONT, self.scale, self.thick)
        return width, height, below

    def write(self, canvas: np.ndarray, start: tuple[int, int], ink: tuple[int, int, int]) -> None:
        """`start`: where on the canvas the line begins that it stands on, (x, y)."""
        if self.font:
            picture = Image.fromarray(canvas)
            ImageDraw.Draw(picture).text(start, self.text, ink, self.font, anchor="ls")
            canvas[:] = picture
        else:
            cv2.putText(canvas, self.text, start, FONT, self.scale, ink, self.thick, cv2.LINE_AA)


def resize(image: np.ndarray, factor: float) -> np.ndarray:
    """A copy, so many times as large."""
    if factor == 1:
        return np.ascontiguousarray(image).copy()
    height, width = (max(1, round(extent * factor)) for extent in image.shape[:2])
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, (width, height), interpolation=method)


def _scale(canvas: np.ndarray) -> float:
    """1 up to READABLE pixels; lines and letters grow with larger pictures."""
    return max(1.0, max(canvas.shape[:2]) / 1.5 / READABLE)


def _outline(
    canvas: np.ndarray, box: np.ndarray, color: tuple[int, int, int], dashed: bool
) -> None:
    """A dark rim below the color keeps the line visible on any background."""
    thick = round(2 * _scale(canvas))
    left, top, right, bottom = box.tolist()
    if not dashed:
        cv2.rectangle(canvas, (left, top), (right, bottom), INK, thick + 2)
        cv2.rectangle(canvas, (left, top), (right, bottom), color, thick)
        return
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    for (x1, y1), (x2, y2) in pairwise(corners):
        steps = max(1, (abs(x2 - x1) + abs(y2 - y1)) // (6 * thick)) * 2
        points = np.linspace((x1, y1), (x2, y2), steps).round().astype(int)
        for start, end in zip(points[::2].tolist(), points[1::2].tolist(), strict=True):
            cv2.line(canvas, start, end, INK, thick + 2)
            cv2.line(canvas, start, end, color, thick)


def _write(canvas: np.ndarray, text: str, box: np.ndarray, color: tuple[int, int, int]) -> None:
    """Above the box where there is room, else inside it; never outside the picture."""
    growth = _scale(canvas)
    line = Line(text, 0.42 * growth, max(1, round(0.6 * growth)))
    width, height, below = line.extent()
    left = min(max(0, int(box[0]) - 1), max(0, canvas.shape[1] - width - 4))
    bottom = max(int(box[1]), height + below + 2)
    corner = (left, bottom - height - below - 2)
    cv2.rectangle(canvas, corner, (left + width + 4, bottom), color, -1)
    luminance = np.dot(color, (0.299, 0.587, 0.114))
    line.write(canvas, (left + 2, bottom - below), INK if luminance > 110 else PAPER)


def add_title(picture: np.ndarray, text: str) -> np.ndarray:
    """The picture under a line of text, 24 pixels high."""
    strip = np.full((24, picture.shape[1], 3), PAPER, np.uint8)
    Line(text, 0.45, 1).write(strip, (2, 16), INK)
    return np.concatenate([strip, picture])


def side_by_side(
    image: np.ndarray,
    truth: Marks,
    detections: Marks,
    class_names: Sequence[str],
    side: int = 480,
    title: str = "",
) -> np.ndarray:
    """Ground truth left, detections right, each `side` pixels long, under a line of text."""
    pair: list[np.ndarray] = []
    for marks, text in ((truth, "ground truth"), (detections, "detections")):
        count = int((np.asarray(marks.labels) >= 0).sum())
        text = f"{text} ({count})" + (f"   {title}" if title and not pair else "")
        pair.append(add_title(draw(image, marks, class_names, side), text))
    gap = np.full((len(pair[0]), 6, 3), PAPER, np.uint8)
    return np.concatenate([pair[0], gap, pair[1]], axis=1)


def contact_sheet(pictures: Sequence[np.ndarray], columns: int = 2, gap: int = 10) -> np.ndarray:
    """All pictures in a white grid, row by row, none rescaled. Raises ValueError without any."""
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    height = max(picture.shape[0] for picture in pictures) + gap
    width = max(picture.shape[1] for picture in pictures) + gap
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.full((rows * height + gap, columns * width + gap, 3), PAPER, np.uint8)
    for index, picture in enumerate(pictures):
        top, left = (gap + index // columns * height, gap + index % columns * width)
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


def encode(picture: np.ndarray, suffix: str) -> bytes:
    """The content of an image file of that kind, as ".png"."""
    _, encoded = cv2.imencode(suffix, picture[..., ::-1])
    content: bytes = encoded.tobytes()
    return content


def truth_and_detections(
    batch: Mapping[str, torch.Tensor], detections: Detections, class_names: Sequence[str]
) -> list[np.ndarray]:
    """Ground truth and detections (score 0.3 and up) of every image of a batch, side by side."""
    shown = []
    scale = (batch["sizes"] / batch["original_sizes"]).float().flip(-1).repeat(1, 2)
    boxes = (detections.boxes * scale[:, None]).cpu().numpy()
    scores, labels = detections.scores.cpu().numpy(), detections.labels.cpu().numpy()
    cpu = {name: value.cpu() for name, value in batch.items()}
    for k, (height, width) in enumerate(cpu["sizes"].tolist()):
        image = cpu["images"][k, :, :height, :width].permute(1, 2, 0).numpy()
        valid = cpu["valid"][k]
        objects = {name: cpu[name][k][valid].numpy() for name in ("boxes", "labels", "ignore")}
        truth = Marks(**objects)
        best = scores[k] >= 0.3
        detected = Marks(boxes[k][best], labels[k][best], scores[k][best])
        shown.append(side_by_side(image, truth, detected, class_names, side=320))
    return shown
