"""Pascal VOC annotations: one xml file per image, and lists of the images of every split."""

import codecs
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from data import DataError
from data.content import Content, Source, join, number_classes
from data.files import Place, header_size
from data.lists import find_list, read_list
from data.pairs import PICTURES, Kind, index, of_split, only, pair

XML = Kind((".xml",), ("annotations", "annotation", "labels", "xml", "xmls", "data"), "Annotations")
PEEK = 4096  # bytes of a file that tell whether it is VOC's
TRUTH = {"": False, "0": False, "1": True, "false": False, "true": True}
DECLARATION = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.-]+)[\"'][^>]*\?>")


class Object(NamedTuple):
    name: str
    box: tuple[float, float, float, float]  # xmin, ymin, xmax, ymax as the file counts: from 1
    difficult: bool


class Image(NamedTuple):
    file_name: str  # relative to the root
    height: int
    width: int
    objects: list[Object]


def read(place: Place, split: str) -> Source:
    """One split: the images that ImageSets/Main/SPLIT.txt lists, or else those in a folder of its
    name, or else, where no folder is called as a split, all there are. Where the data lie in a
    folder of the root, that is a part of the name: VOC2007/trainval. Raises DataError for whatever
    is missing or broken."""
    prefix, _, name = split.rpartition("/")
    base = place.root / prefix
    images = index(PICTURES, place, base, place.images, name)
    xmls = index(XML, place, base, place.annotations, name)
    listing, undivided = find_list(place, base, name), False
    files: Sequence[tuple[Path, Path | None]]
    if listing:
        files = read_list(base, listing, images, xmls)
    else:
        keys, undivided = of_split(images, name)
        pairs = pair(keys, images, xmls)
        files = [(only(images.files[key]), pairs.get(key)) for key in keys]
    where = f"{place.root} ({split})"
    if not files:
        raise DataError(f"{where} has no images")
    lacking = sum(xml is None for _, xml in files)
    if lacking == len(files):
        raise DataError(f"{base} has no xml files for {len(files)} images of {name!r}")
    notes = f"{lacking} of {len(files)} images have no xml file: they count as background"
    content = to_coco([_read_image(place.root, *paths) for paths in files])
    listed = place.relative(listing) if listing else "no lists"
    described = f"{listed}, xml in {place.relative(xmls.folder)}"
    return Source(where, place.root, content, described, (notes,) * bool(lacking), undivided)


def recognize(place: Place) -> str | None:
    """The name of something of VOC's that lies there: an xml file with annotations."""
    for folder in place.folders.walk(place.root):
        for path in place.folders.files(folder, XML.suffixes)[:1]:
            with open(path, "rb") as file:
                if re.search(rb"<annotation[\s/>]", file.read(PEEK).replace(b"\0", b"")):
                    return place.relative(path)
    return None


def _read_image(root: Path, path: Path, xml: Path | None) -> Image:
    file_name = os.path.relpath(path, root)
    if xml is None:
        return Image(file_name, *header_size(str(path)), [])
    try:
        tree = _parse(xml.read_bytes())
        objects = [_read_object(node) for node in tree.findall("object")]
    except OSError as error:
        reason = error.strerror or error
        raise DataError(
            f"cannot read the annotations {xml}: {reason}; an image without objects needs a file "
            "with <annotation/>"
        ) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise DataError(f"the annotations {xml} are broken: {error}") from None
    height, width = (_pixels(tree.findtext(f"size/{side}")) for side in ("height", "width"))
    if not height or not width:
        height, width = header_size(str(path))
    return Image(file_name, height, width, objects)


def _parse(text: bytes) -> ElementTree.Element:
    """The root element, in any encoding that Python knows, without namespaces."""
    declared = DECLARATION.match(text)
    if declared:  # the parser itself knows no encoding of several bytes, such as GBK
        text = DECLARATION.sub(b"", text, 1).decode(declared[1].decode()).encode()
    elif not text.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and not _is_utf8(text):
        raise ValueError("it is not UTF-8, and it declares no encoding")
    tree = ElementTree.fromstring(text)
    for node in tree.iter():
        node.tag = node.tag.rpartition("}")[2]
    if tree.tag != "annotation":
        raise ValueError(f"VOC's files begin with <annotation>, this one with <{tree.tag}>")
    return tree


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _read_object(node: ElementTree.Element) -> Object:
    name, box = (node.findtext("name") or "").strip(), node.find("bndbox")
    if not name or box is None:
        raise ValueError("an object lacks its name or its bndbox")
    texts = [box.findtext(side) for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        left, top, right, bottom = (float(text or "") for text in texts)
    except ValueError:
        raise ValueError(f"an object {name!r} has the bndbox {texts}") from None
    difficult = (node.findtext("difficult") or "").strip()
    if difficult.lower() not in TRUTH:
        raise ValueError(f"an object {name!r} has difficult {difficult!r}: write 0 or 1")
    return Object(name, (left, top, right, bottom), TRUTH[difficult.lower()])


def _pixels(text: str | None) -> int:
    """0 for what is no size, and for a size that nobody filled in."""
    try:
        return int(float(text or 0))
    except (ValueError, OverflowError):
        return 0


def to_coco(images: Sequence[Image]) -> Content:
    """The content of a COCO file: classes sorted by name, since VOC has no list of them; all ids
    count from 1, boxes are (xmin - 1, ymin - 1, width, height). An object marked as difficult is a
    crowd (COCO's word for: neither right nor wrong) and keeps its mark."""
    names = sorted({item.name for image in images for item in image.objects})
    ids = {name: number for number, name in enumerate(names, start=1)}
    rows: list[dict[str, Any]] = []
    for image_id, image in enumerate(images, start=1):
        for item in image.objects:
            left, top, right, bottom = item.box
            left, top = left - 1, top - 1
            width, height = right - left, bottom - top
            row: dict[str, Any] = {"id": len(rows) + 1, "image_id": image_id}
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
    place = Place(Path(root))
    names = [splits] if isinstance(splits, str) else splits
    content = join([read(place, split) for split in names], place.root).content
    occurring = sorted(category["name"] for category in content["categories"])
    return number_classes(content, occurring if classes is None else classes)
