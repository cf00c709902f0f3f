"""Writes splits of a VOC folder as one COCO annotation file.

    python scripts/voc2coco.py datasets/VOCdevkit VOC2007/trainval VOC2012/trainval --out all.json

File names are relative to ROOT; `difficult` objects become crowds. To train on the result:
--data.format coco --data.annotations all.json --data.images . (for both splits: {split}.json)
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.voc import voc_to_coco
from detector.config.errors import one_line_errors


def main(arguments: list[str] | None = None) -> None:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("root", type=Path, help="folder that holds ImageSets, or VOC2007, ...")
    parser.add_argument("splits", nargs="+", metavar="SPLIT", help="trainval, VOC2007/test, ...")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--classes", nargs="+", help="names and order; default: all, sorted")
    options = parser.parse_args(arguments)
    with one_line_errors():
        content = voc_to_coco(options.root, options.splits, options.classes)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content))
    counts = [f"{len(content[name])} {name}" for name in ("images", "annotations", "categories")]
    print(f"{options.out}: {', '.join(counts)}")


if __name__ == "__main__":
    main()
