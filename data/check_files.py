"""What only a look into every image can tell, and what takes longer than a training should wait."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data import DataError
from data.check import SOME, Finding, digest, worst_paths
from data.split import Split
from data.transforms import load_annotated, load_image

BITS = 4  # of 64 in which the perceptual hashes of images that look alike may differ
BLOCK = 1024  # images that are compared with all others at once
FULL = 0.99  # of an image that a box covers: it may stand for the image
THIN = 2  # pixels of the file


class Facts(NamedTuple):
    """Of one image file. `error`: why it cannot be read as it is annotated · `stored`: only as the
    pixels are stored, not as a viewer turns them, has it the annotated size · `digest` of the bytes
    · `look`: perceptual hash, 64 bits; None without imagehash."""

    error: str = ""
    stored: bool = False
    digest: bytes = b""
    look: int | None = None


def inspect(split: Split, name: str, workers: int = 2) -> list[Facts]:
    """Reads every image."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        facts = pool.map(_inspect_one, split.paths, split.sizes.tolist())
        bar = tqdm(facts, f"reading {name}", len(split), unit="image", leave=False, disable=None)
        return list(bar)


def _inspect_one(path: str, size: Sequence[int]) -> Facts:
    annotated = size[0], size[1]
    try:
        image = load_image(path)
        stored = image.shape[:2] != annotated
        if stored:
            image = load_annotated(path, annotated)
        return Facts(stored=stored, digest=digest(path), look=_look(image))
    except DataError as error:
        return Facts(str(error))


def _look(image: np.ndarray) -> int | None:
    try:
        import imagehash  # an optional extra
    except ModuleNotFoundError:
        return None
    from PIL import Image

    bits = imagehash.phash(Image.fromarray(image)).hash.flatten()
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def check_files(part: str, split: Split, facts: Sequence[Facts]) -> list[Finding]:
    """Files that cannot be read, are of another size than annotated, or are there twice."""
    findings = []
    broken = [k for k, fact in enumerate(facts) if fact.error]
    if broken:
        paths = [split.paths[k] for k in broken]
        line = f"{part}: {len(broken)} images cannot be used, the first: {facts[broken[0]].error}"
        findings.append(Finding("error", "files", line, paths))
    stored = [path for path, fact in zip(split.paths, facts, strict=True) if fact.stored]
    if stored:
        line = (
            f"{part}: {len(stored)} images are to be turned by their EXIF data, but are annotated "
            f"as they are stored, and are used so; the first: {stored[0]}"
        )
        findings.append(Finding("warning", "orientation", line, stored))
    groups: dict[bytes, list[str]] = defaultdict(list)
    for path, fact in zip(split.paths, facts, strict=True):
        if not fact.error:
            groups[fact.digest].append(path)
    repeated = [paths for paths in groups.values() if len(paths) > 1]
    if repeated:
        more = sum(len(paths) - 1 for paths in repeated)
        pair = " and ".join(repeated[0][:2])
        line = f"{part}: {more} images are copies of others, the first: {pair}"
        findings.append(Finding("warning", "copies", line, [path for x in repeated for path in x]))
    return findings


def check_likeness(
    train: Split, train_facts: Sequence[Facts], val: Split, val_facts: Sequence[Facts]
) -> list[Finding]:
    """Images of val that are in train, or look like one there."""
    digests = {fact.digest for fact in train_facts if not fact.error}
    same = [
        path
        for path, fact in zip(val.paths, val_facts, strict=True)
        if not fact.error and fact.digest in digests
    ]
    findings = []
    if same:
        line = (
            f"{len(same)} of {len(val)} val images are also in train, the first: {same[0]}: AP is "
            "then partly that of what was learned by heart"
        )
        findings.append(Finding("warning", "leaks", line, same))
    pairs = [
        (val.paths[k], train.paths[other])
        for k, other in _alike(val_facts, train_facts)
        if val_facts[k].digest not in digests
    ]
    if pairs:
        line = (
            f"{len(pairs)} of {len(val)} val images look like one in train (at most {BITS} of 64 "
            f"bits of their perceptual hashes differ), the first: {' and '.join(pairs[0])}"
        )
        findings.append(
            Finding("warning", "look-alikes", line, [path for x in pairs for path in x])
        )
    return findings


def _alike(left: Sequence[Facts], right: Sequence[Facts]) -> Iterable[tuple[int, int]]:
    """The index of every one of `left` that looks like one of `right`, and of the one that is most
    like it."""
    rows = [k for k, fact in enumerate(left) if fact.look is not None]
    columns = [k for k, fact in enumerate(right) if fact.look is not None]
    if not rows or not columns:
        return
    looks = np.array([right[k].look for k in columns], np.uint64)
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        own = np.array([left[k].look for k in block], np.uint64)
        distance = np.bitwise_count(own[:, None] ^ looks)
        for k, nearest, least in zip(block, distance.argmin(1), distance.min(1), strict=True):
            if least <= BITS:
                yield k, columns[nearest]


def check_labels(part: str, split: Split) -> list[Finding]:
    """Objects that may be annotated wrongly: the same box twice, boxes that are hardly there, boxes
    around whole images."""
    image = np.repeat(np.arange(len(split)), np.diff(split.starts))
    judged = ~split.ignore
    image, boxes, labels = image[judged], split.boxes[judged], split.labels[judged]
    _, first, place = np.unique(
        np.column_stack([image, boxes]), axis=0, return_index=True, return_inverse=True
    )
    again = first[place.reshape(-1)] != np.arange(len(image))
    same = again & (labels == labels[first[place.reshape(-1)]])
    sides = boxes[:, 2:] - boxes[:, :2]
    full = sides.prod(axis=1) >= FULL * split.sizes[image].prod(axis=1)
    rules = [
        ("copies", same, "are there twice with the same class: remove one of each"),
        ("copies", again & ~same, "are there twice with two classes: remove the wrong one"),
        ("thin boxes", (sides < THIN).any(axis=1), f"are under {THIN} pixels wide or high"),
    ]
    if full.sum() > SOME * len(split):
        rules.append(("full boxes", full, "cover a whole image: do they stand for the image?"))
    findings = []
    for kind, wrong, text in rules:
        if wrong.any():
            paths = worst_paths(split, image[wrong])
            line = f"{part}: {wrong.sum()} of {len(boxes)} objects {text} (the first: {paths[0]})"
            findings.append(Finding("warning", kind, line, paths))
    return findings


def check_counts(part: str, split: Split, most: int) -> list[Finding]:
    """Images with more objects than are ever detected in one."""
    image = np.repeat(np.arange(len(split)), np.diff(split.starts))[~split.ignore]
    counts = np.bincount(image, minlength=len(split))
    full = counts > most
    if not full.any():
        return []
    line = (
        f"{part}: {full.sum()} images have more than {most} objects, up to {counts.max()}, and no "
        "more are detected: raise postprocess.max_detections"
    )
    return [Finding("warning", "many objects", line, worst_paths(split, image[full[image]]))]
