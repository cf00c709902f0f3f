"""A sheet of what is wrong: false detections, likely wrong labels and missed objects as crops."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from detector.evaluation.drawing import Marks, add_title, contact_sheet, draw, resize
from detector.evaluation.tide import Mistake

MOST = 12  # crops of a group
SIDE = 200  # pixels of a crop
CONTEXT = 1.0  # of a box's longer side, on every side of it
GROUPS = {
    "most confident false detections (background: an object without a label?)": (
        *("background", "location", "both", "duplicate"),
    ),
    "taken for another class, the most confident first (a wrong label?)": ("class",),
    "missed objects, the largest first": ("missed",),
}


Groups = Mapping[str, Sequence[Mistake]]


def choose_mistakes(mistakes: Sequence[Mistake]) -> Groups:
    """Title of a group -> the first of `mistakes` that belong to it; none is empty."""
    groups = {
        title: [mistake for mistake in mistakes if mistake.kind in kinds][:MOST]
        for title, kinds in GROUPS.items()
    }
    return {title: group for title, group in groups.items() if group}


def draw_mistakes(
    groups: Groups,
    objects: Sequence[Mapping[str, Any]],
    read_image: Callable[[int], np.ndarray],
) -> np.ndarray | None:
    """A row of crops or two for each group, RGB (H, W, 3): what a mistake is about in color, all
    objects in gray and dashed. None where there is no mistake.

    Args:
        groups: see `choose_mistakes`.
        objects: all annotations of the images.
        read_image: image id -> pixels, RGB (H, W, 3).
    """
    wanted: defaultdict[int, list[Mistake]] = defaultdict(list)
    for mistake in (mistake for group in groups.values() for mistake in group):
        wanted[mistake.image_id].append(mistake)
    boxes: defaultdict[int, list[Sequence[float]]] = defaultdict(list)
    for row in objects:
        boxes[row["image_id"]].append(row["bbox"])
    crops: dict[int, np.ndarray] = {}
    for image_id, group in wanted.items():
        image = read_image(image_id)
        crops |= {id(m): draw_crop(image, m, boxes[image_id]) for m in group}
    sheets = [
        add_title(contact_sheet([crops[id(m)] for m in group], columns=6, gap=6), title)
        for title, group in groups.items()
    ]
    if not sheets:
        return None
    width = max(sheet.shape[1] for sheet in sheets)
    edges = [((0, 0), (0, width - sheet.shape[1]), (0, 0)) for sheet in sheets]
    padded = [np.pad(s, e, constant_values=255) for s, e in zip(sheets, edges, strict=True)]
    return np.concatenate(padded)


def draw_crop(
    image: np.ndarray, mistake: Mistake, objects: Sequence[Sequence[float]]
) -> np.ndarray:
    """The box of a mistake with what is around it, SIDE pixels square under a line of text."""
    x, y, width, height = mistake.bbox
    reach = (0.5 + CONTEXT) * max(width, height, 8)
    left, top = round(x + width / 2 - reach), round(y + height / 2 - reach)
    extent = round(2 * reach)
    factor = SIDE / extent
    rows = slice(max(0, top), min(image.shape[0], top + extent))
    columns = slice(max(0, left), min(image.shape[1], left + extent))
    part = resize(image[rows, columns], factor)  # first: around a large box there is much white
    crop = np.full((SIDE, SIDE, 3), 255, np.uint8)
    start = round((rows.start - top) * factor), round((columns.start - left) * factor)
    inside = crop[start[0] :, start[1] :][: part.shape[0], : part.shape[1]]
    inside[:] = part[: inside.shape[0], : inside.shape[1]]
    boxes = np.array([*objects, mistake.bbox], float)
    boxes[:, :2] -= (left, top)
    boxes[:, 2:] += boxes[:, :2]
    boxes *= factor
    seen = (boxes[:, :2] < SIDE).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
    others = np.arange(len(boxes)) < len(objects)
    marks = Marks(boxes[seen], np.zeros(seen.sum(), int), ignore=others[seen])
    return add_title(draw(crop, marks, [""], SIDE), describe(mistake))


def describe(mistake: Mistake) -> str:
    """In a few words, for a title."""
    if mistake.score is None:
        return mistake.truth
    text = f"{mistake.detected} {mistake.score:.2f}"
    return f"{text}, is {mistake.truth}" if mistake.kind == "class" else f"{text} {mistake.kind}"
