"""A drawn data set of objects that only their pattern tells apart, in COCO layout.

python -m data.identities datasets/identities

An image shows several tiles, and disks between them. A tile carries one of 32 patterns, which is
its identity (`track_id`); disks have none. Four pairs of colors are shared by eight patterns each,
and a pattern has equal parts of both colors: a histogram of colors says which of four pairs it is
and no more. Patterns come in groups of four look-alikes, which differ in a quarter of their cells
or in half of them, and are symmetric, so that a mirrored image shows the same ones. Light and its
color change from image to image.

Every image is a pure function of (seed, split, index). Train and val show the same identities, or
with `--unseen` val shows 32 others.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from data import DataError
from data.scenes import Canvas, Scene, place_shape
from data.shapes import Drawing, draw_dataset, parser

CATEGORIES = {1: "tile", 2: "disk"}
IDENTITIES, GROUP = 32, 4  # in all, and how many of them look alike
COLORS = np.array(
    [
        [(205, 60, 50), (240, 220, 185)],
        [(40, 80, 190), (235, 205, 70)],
        [(30, 125, 70), (230, 235, 240)],
        [(110, 40, 135), (240, 150, 65)],
    ],
    np.float32,
)
TEXTURE = 64  # pixels of a pattern before it is turned and scaled


class Identity(NamedTuple):
    """`colors` (2, 3) RGB; `cells` bool (4, 4), of which half have the second color."""

    colors: np.ndarray
    cells: np.ndarray


@cache
def identities() -> list[Identity]:
    """Those of train, by their `track_id`, and as many that only an unseen val split shows."""
    random = np.random.default_rng(7)
    codes: list[list[bytes]] = [[] for _ in COLORS]  # the left halves: 8 cells, 4 of them set
    result: list[Identity] = []
    while len(result) < 2 * IDENTITIES:
        pair = len(result) // GROUP % len(COLORS)
        base = random.permutation(np.repeat([False, True], 4))
        group = [base]
        for _ in range(GROUP - 1):
            code = base.copy()
            code[[random.choice(np.flatnonzero(base)), random.choice(np.flatnonzero(~base))]] ^= (
                True
            )
            group.append(code)
        if len({code.tobytes() for code in group} - set(codes[pair])) < GROUP:
            continue
        codes[pair] += [code.tobytes() for code in group]
        halves = [code.reshape(4, 2) for code in group]
        result += [Identity(COLORS[pair], np.hstack([half, half[:, ::-1]])) for half in halves]
    return result


def draw_face(
    identity: Identity, pose: np.ndarray, center: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """A pattern, float32 (3, *shape) RGB, which fills the square from (-1, -1) to (1, 1) before
    that is turned and scaled by `pose` (2, 2) and moved to `center` (x, y)."""
    side = TEXTURE // len(identity.cells)
    cells = identity.cells.repeat(side, 0).repeat(side, 1)
    corner = center + pose @ np.full(2, 1 / TEXTURE - 1)  # of the first pixel, its middle
    placed = np.hstack([pose * 2 / TEXTURE, corner[:, None]])
    texture = identity.colors[cells.astype(int)]
    face = cv2.warpAffine(texture, placed, shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    return face.transpose(2, 0, 1)


def _pose(random: np.random.Generator, extent: float) -> np.ndarray:
    """Turned a little and stretched; the tile's longer side is `extent` pixels."""
    angle = random.uniform(-0.3, 0.3)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn * (extent / 2 * np.array([random.uniform(0.8, 1.0), 1.0]))


def draw_identities_scene(random: np.random.Generator, size: int, split: str) -> Scene:
    """One image whose longer side is `size` pixels: two to five tiles, none twice, and up to three
    disks. A `split` "unseen" shows the identities that train does not."""
    height, width = [(1.0, 1.0), (0.75, 1.0), (1.0, 0.75)][random.choice(3, p=[0.5, 0.3, 0.2])]
    canvas = Canvas(random, round(size * height), round(size * width))
    light = random.uniform(0.6, 1.2) * random.uniform(0.85, 1.15, (3, 1, 1))
    first = IDENTITIES if split == "unseen" else 0
    tiles = first + random.permutation(IDENTITIES)[: random.integers(2, 6)]
    objects = [*tiles.tolist(), *[None] * random.integers(4)]
    limits = np.array(canvas.shape[::-1])
    for number in random.permutation(len(objects)):
        identity = objects[number]
        extent = size * random.uniform(0.16, 0.4)
        for _ in range(4):  # places are tried; what finds none is left out
            center = random.uniform(extent / 2, limits - extent / 2)
            if identity is None:
                drawn = canvas.add(2, [place_shape(random, "disk", extent, center)])
            else:
                pose = _pose(random, extent)
                corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) @ pose.T + center
                face = light * draw_face(identities()[identity], pose, center, canvas.shape)
                drawn = canvas.add(1, [[corners]], face=face.clip(0, 255), identity=identity)
            if drawn:
                break
    return canvas.finish()


def draw_identities(
    root: str | Path,
    *,
    train: int = 800,
    val: int = 200,
    size: int = 160,
    seed: int = 0,
    unseen: bool = False,
) -> None:
    """Draws root/train, root/val and root/annotations/instances_{train,val}.json, as
    `draw_dataset` does. `unseen`: no identity of val is in train."""

    def scene(random: np.random.Generator, size: int, split: str) -> Scene:
        return draw_identities_scene(random, size, "unseen" if unseen and split == "val" else split)

    title = "drawn identities, unseen in val" if unseen else "drawn identities"
    drawing = Drawing(title, CATEGORIES, scene)
    draw_dataset(root, train=train, val=val, size=size, seed=seed, drawing=drawing)


def main(arguments: list[str] | None = None) -> None:
    program = parser("identities", __doc__, train=800, val=200)
    program.add_argument("--unseen", action="store_true", help="no identity of val is in train")
    try:
        draw_identities(**vars(program.parse_args(arguments)))
    except DataError as error:
        program.error(str(error))


if __name__ == "__main__":
    main()
