"""One drawn image: six shapes, small to large, in front of each other, on a cluttered background.

It has the difficulties of real images on purpose: a 13:1 class imbalance, occlusion, crowd regions,
empty images, portrait and landscape images and objects for every pyramid level.
"""

from typing import Any, NamedTuple

import cv2
import numpy as np

Contours = list[np.ndarray]  # each (n, 2) x, y in pixels; a second one is a hole in the first

CATEGORIES = {3: "disk", 7: "square", 8: "triangle", 12: "star", 20: "ring", 21: "cross"}
FREQUENCY = 0.6 ** np.arange(6)  # geometric, in the order of CATEGORIES: 13 disks for one cross
SMALLEST = 9  # pixels; a 12 px anchor still has IoU 0.56 with it
NEIGHBORS = 0.35  # this share is drawn in front of the former thing, of about the same size
VISIBLE_SHARE, VISIBLE_PIXELS = 0.25, 12  # what shows less could not be annotated honestly


class Scene(NamedTuple):
    """`image` uint8 (H, W, 3) RGB; `annotations` A COCO annotations without ids, back to front;
    `masks` bool (A, H, W), the whole extent of each, hidden or not (a crowd: of all in it)."""

    image: np.ndarray
    annotations: list[dict[str, Any]]
    masks: np.ndarray


def circle(radius: float | np.ndarray, corners: int = 64) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.reshape(radius, (-1, 1))


_ARMS = np.array([(1, 3), (1, 1), (3, 1), (3, -1), (1, -1), (1, -3)], float)
_CONTOURS = {
    "disk": [circle(1.0)],
    "square": [circle(1.0, 4)],
    "triangle": [circle(1.0, 3)],
    "star": [circle(np.tile([1.0, 0.45], 5), 10)],
    "ring": [circle(1.0), circle(0.52)],
    "cross": [np.concatenate([_ARMS, -_ARMS])],
}


def place_shape(rng: np.random.Generator, name: str, size: float, center: np.ndarray) -> Contours:
    """Turned and stretched, its longer extent `size` pixels."""
    angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.0)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    contours = [points * (stretch, 1.0) @ turn for points in _CONTOURS[name]]
    low, high = contours[0].min(axis=0), contours[0].max(axis=0)
    return [center + (points - (low + high) / 2) * size / max(high - low) for points in contours]


def _coverage(contours: Contours, shape: tuple[int, ...], line: int = 0) -> np.ndarray:
    """How much of every pixel the shape, or its outline `line` pixels wide, covers; 255 is all."""
    coverage = np.zeros(shape, np.uint8)
    fixed = [np.round(points * 16).astype(np.int32) for points in contours]  # 4 fractional bits
    if line:
        cv2.polylines(coverage, fixed, True, 255, line, cv2.LINE_AA, 4)
    else:
        cv2.fillPoly(coverage, fixed, 255, cv2.LINE_AA, 4)
    return coverage


def _stretch(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    return cv2.resize(plane.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)


def paint(image: np.ndarray, contours: Contours, face: np.ndarray, light: np.ndarray) -> None:
    """Draws shadow, shaded face and darker rim into `image`; both images are float32 (3, H, W)."""
    corner = (contours[0].min(axis=0) - 8).clip(0).astype(int)  # 8 pixels are enough for a shadow
    right, bottom = (contours[0].max(axis=0) + 9).astype(int)
    part = image[:, corner[1] : bottom, corner[0] : right]
    face = face[:, corner[1] : bottom, corner[0] : right]
    shape = part.shape[1:]
    contours = [points - corner for points in contours]
    center, extent = contours[0].mean(axis=0), np.ptp(contours[0], axis=0).max()
    shadow = _coverage([points - light * (1 + 0.03 * extent) for points in contours], shape)
    shadow = cv2.GaussianBlur(shadow, (0, 0), 1 + 0.02 * extent)
    part *= 1 - shadow * np.float32(0.4 / 255)
    x, y = np.arange(shape[1]) - center[0], np.arange(shape[0]) - center[1]
    shade = (1 + 0.5 / extent * np.add.outer(y * light[1], x * light[0])).astype(np.float32)
    shade *= 1 - _coverage(contours, shape, line=1 + int(extent > 60)) * np.float32(0.35 / 255)
    alpha = _coverage(contours, shape) * np.float32(1 / 255)
    part += alpha * (face * shade - part)


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Dull colors that run into each other, grain, faint blobs and lines; float32 (3, H, W)."""
    palette = rng.uniform(50, 205) + rng.uniform(-35, 35, (3, 4, 4))
    grain = rng.normal(0, rng.uniform(2, 12), (height // 6, width // 6))
    image = np.array([_stretch(plane, height, width) for plane in palette])
    image += _stretch(grain, height, width)
    for _ in range(rng.integers(9)):
        points = rng.uniform(-0.2, 1.2, (4, 2)) * (width, height)
        if rng.random() < 0.5:
            clutter = _coverage([points], (height, width), line=int(rng.integers(1, 4)))
        else:  # a blob needs no detail, and a wide blur is slow
            clutter = _coverage([points / 4], (height // 4, width // 4))
            clutter = cv2.GaussianBlur(clutter, (0, 0), rng.uniform(1, 2.5))
            clutter = _stretch(clutter, height, width)
        image += clutter * rng.uniform(-30 / 255, 30 / 255, (3, 1, 1)).astype(np.float32)
    return image


class _Object(NamedTuple):
    """What becomes one annotation; `mask` bool (H, W) is its whole extent, hidden or not."""

    category: int
    crowd: bool
    mask: np.ndarray
    identity: int | None


class Canvas:
    """An image that is drawn back to front and knows what is still seen of everything in it."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng, self.shape = rng, (height, width)
        self.image = background(rng, height, width)
        self.light = circle(1.0)[rng.integers(64)]
        self.objects: list[_Object] = []
        self.visible: list[np.ndarray] = []  # of each object, bool (H, W)

    def add(
        self,
        category: int,
        shapes: list[Contours],
        crowd: bool = False,
        face: np.ndarray | None = None,
        identity: int | None = None,
    ) -> bool:
        """Draws `shapes` as one object, unless it would hide another too far; says whether. `face`
        float32 (3, H, W) is what is seen within them: a color that stands out, if none is given."""
        mask = np.zeros(self.shape, bool)
        for contours in shapes:
            mask |= _coverage(contours, self.shape) > 127
        objects = [*self.objects, _Object(category, crowd, mask, identity)]
        visible = [*(seen & ~mask for seen in self.visible), mask]
        for drawn, seen in zip(objects, visible, strict=True):
            required = max(VISIBLE_PIXELS, VISIBLE_SHARE * np.count_nonzero(drawn.mask))
            if np.count_nonzero(seen) < required:
                return False
        self.objects, self.visible = objects, visible
        if face is None:
            face = self._contrasting_color(mask)[:, None, None]
        for contours in shapes:
            tint = crowd * self.rng.uniform(-15, 15)
            tinted = np.broadcast_to((face + tint).astype(np.float32), self.image.shape)
            paint(self.image, contours, tinted, self.light)
        return True

    def _contrasting_color(self, mask: np.ndarray) -> np.ndarray:
        colors = self.rng.uniform(20, 235, (32, 3))
        contrasts = np.linalg.norm(colors - self.image[:, mask].mean(axis=1), axis=1)
        return colors[np.argmax(contrasts > self.rng.uniform(70, 130))]  # the first that will do

    def finish(self) -> Scene:
        """Adds noise and blurs a little, as a camera does."""
        noise = self.rng.uniform(0, 6) * self.rng.standard_normal(self.shape, np.float32)
        image = (self.image + noise).clip(0, 255).transpose(1, 2, 0)
        image = cv2.GaussianBlur(image, (0, 0), self.rng.uniform(0.3, 0.7))
        annotations = []
        for drawn, seen in zip(self.objects, self.visible, strict=True):
            x, y, width, height = cv2.boundingRect(drawn.mask.astype(np.uint8))
            annotation = {
                "category_id": drawn.category,
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": int(drawn.crowd),
                "occlusion": round(1 - np.count_nonzero(seen) / np.count_nonzero(drawn.mask), 4),
            }
            if drawn.identity is not None:
                annotation["track_id"] = drawn.identity
            annotations.append(annotation)
        masks = np.array([drawn.mask for drawn in self.objects], bool).reshape(-1, *self.shape)
        return Scene(image.round().astype(np.uint8), annotations, masks)


def _pile(
    rng: np.random.Generator, name: str, center: np.ndarray, limits: np.ndarray
) -> list[Contours]:
    """Many small ones of a kind, too close to each other to be told apart."""
    spots = center + rng.normal(0, limits.max() / 12, (rng.integers(12, 28), 2))
    return [place_shape(rng, name, rng.uniform(8, 15), spot) for spot in spots.clip(4, limits - 4)]


def draw_scene(rng: np.random.Generator, size: int = 160) -> Scene:
    """One image whose longer side is `size` pixels; one in eight has no objects."""
    height, width = [(1.0, 1.0), (0.75, 1.0), (1.0, 0.75)][rng.choice(3, p=[0.5, 0.3, 0.2])]
    canvas = Canvas(rng, round(size * height), round(size * width))
    if rng.random() < 0.125:
        return canvas.finish()
    extents = np.exp(rng.uniform(np.log(SMALLEST), np.log(0.98 * size), rng.integers(2, 12)))
    # Big things first, but not strictly, or nothing would ever be hidden by something bigger.
    extents = extents[np.argsort(-extents * rng.lognormal(0, 0.4, len(extents)))]
    crowd = rng.integers(len(extents)) if rng.random() < 0.15 else -1
    limits = np.array(canvas.shape[::-1])
    last, last_extent = limits / 2, 0.0
    for number, extent in enumerate(extents):
        category = int(rng.choice(list(CATEGORIES), p=FREQUENCY / FREQUENCY.sum()))
        margin = np.minimum(0.4 * extent, limits / 2)  # at least 0.9 of either extent is inside
        for _ in range(4):  # places are tried; what finds none is left out
            center = rng.uniform(margin, limits - margin)
            if last_extent and rng.random() < NEIGHBORS:
                offset = circle(rng.uniform(0.25, 0.6) * (extent + last_extent) / 2)
                center = (last + offset[rng.integers(64)]).clip(margin, limits - margin)
            shapes = [place_shape(rng, CATEGORIES[category], extent, center)]
            if number == crowd:
                shapes = _pile(rng, CATEGORIES[category], center, limits)
            if canvas.add(category, shapes, crowd=bool(number == crowd)):
                last, last_extent = center, extent
                break
    return canvas.finish()
