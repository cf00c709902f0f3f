"""Pascal VOC annotations: ImageSets/Main/SPLIT.txt and one xml file per image, as COCO content."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from data import DataError
from data.coco import Content
from data.split import header_size

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp")


class Object(NamedTuple):
    name: str
    box: tuple[float, float, float, float]  # xmin, ymin, xmax, ymax as the file counts: from 1
    difficult: bool


class Image(NamedTuple):
    file_name: str  # relative to the root
    height: int
    width: int
    objects: list[Object]


def read(root: Path, splits: str | Sequence[str]) -> list[Image]:
    """The images of one or several splits, joined in this order. A split is "trainval" or, where
    the data lie in a folder of root, "VOC2007/trainval". Raises DataError for whatever is missing
    or broken."""
    images = []
    for split in [splits] if isinstance(splits, str) else splits:
        folder, _, name = split.rpartition("/")
        stems = _stems(root / folder / "ImageSets" / "Main" / f"{name}.txt")
        files = _images(root / folder / "JPEGImages", stems)
        for stem, file in zip(stems, files, strict=True):
            path = root / folder / "Annotations" / f"{stem}.xml"
            file_name = "/".join(filter(None, [folder, "JPEGImages", file]))
            images.append(_image(path, root, file_name))
    return images


def _stems(path: Path) -> list[str]:
    """The first column of a split's list (the lists of single classes have a second)."""
    try:
        stems = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    except OSError:
        names = sorted(other.stem for other in path.parent.glob("*.txt"))
        choices = f"there are: {', '.join(names)}" if names else "see data.root and data.format"
        raise DataError(f"the split {path} is missing; {choices}") from None
    if len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise DataError(f"{path} names the image {twice} twice, delete one of the lines")
    return stems


def _images(folder: Path, stems: Sequence[str]) -> list[str]:
    """The image files of the stems; xml files often name others than there are."""
    files: dict[str, str] = {}
    for inner in sorted({os.path.dirname(stem) for stem in stems}):
        try:
            with os.scandir(folder / inner) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError:
            raise DataError(f"the image folder {folder / inner} is missing") from None
        for name in names:
            stem, extension = os.path.splitext(name)
            if extension.lower() in EXTENSIONS:
                files.setdefault(os.path.join(inner, stem), os.path.join(inner, name))
    missing = [stem for stem in stems if stem not in files]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(stems)} images are missing in {folder}, "
            f"the first: {missing[0]} ({', '.join(EXTENSIONS)})"
        )
    return [files[stem] for stem in stems]


def _image(path: Path, root: Path, file_name: str) -> Image:
    try:
        tree = ElementTree.fromstring(path.read_bytes())
        objects = [_object(node) for node in tree.findall("object")]
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"cannot read the annotations {path}: {reason}") from None
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"the annotations {path} are broken: {error}") from None
    height, width = (_pixels(tree.findtext(f"size/{side}")) for side in ("height", "width"))
    if not height or not width:
        height, width = header_size(str(root / file_name))
    return Image(file_name, height, width, objects)


def _object(node: ElementTree.Element) -> Object:
    name, box = (node.findtext("name") or "").strip(), node.find("bndbox")
    if not name or box is None:
        raise ValueError("an object lacks its name or its bndbox")
    texts = [box.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(text or "") for text in texts)
    except ValueError:
        raise ValueError(f"an object {name!r} has the bndbox {texts}") from None
    difficult = (node.findtext("difficult") or "").strip() == "1"
    return Object(name, (left, top, right, bottom), difficult)


def _pixels(text: str | None) -> int:
    """0 for what is no size, and for a size that nobody filled in."""
    try:
        return int(float(text or 0))
    except (ValueError, OverflowError):
        return 0


def class_names(images: Iterable[Image]) -> list[str]:
    """The names that occur, sorted: VOC has no list of them."""
    return sorted({item.name for image in images for item in image.objects})


def to_coco(images: Sequence[Image], classes: Sequence[str]) -> Content:
    """The content of a COCO file with the objects of `classes`; all ids count from 1, file names
    are relative to the root, boxes are (xmin - 1, ymin - 1, width, height). An object marked as
    difficult is a crowd (COCO's word for: neither right nor wrong) and keeps its mark."""
    ids = {name: number for number, name in enumerate(classes, start=1)}
    rows: list[dict[str, object]] = []
    for image_id, image in enumerate(images, start=1):
        for item in image.objects:
            if item.name not in ids:
                continue
            left, top, right, bottom = item.box
            left, top = left - 1, top - 1
            width, height = right - left, bottom - top
            row: dict[str, object] = {"id": len(rows) + 1, "image_id": image_id}
            row |= {"category_id": ids[item.name], "bbox": [left, top, width, height]}
            row |= {"area": width * height, "iscrowd": int(item.difficult)}
            rows.append(row | ({"difficult": 1} if item.difficult else {}))
    headers = [
        {"id": number, "file_name": name, "height": height, "width": width}
        for number, (name, height, width, _) in enumerate(images, start=1)
    ]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return {"images": headers, "annotations": rows, "categories": categories}


def voc_to_coco(
    root: str | Path, splits: str | Sequence[str], classes: Sequence[str] | None = None
) -> Content:
    """Splits of a VOC folder as the content of a COCO file; without `classes`, those that occur."""
    images = read(Path(root), splits)
    return to_coco(images, class_names(images) if classes is None else classes)
