"""Write splits of a VOC folder as one COCO file:  python scripts/voc2coco.py ROOT SPLIT --out FILE

`difficult` objects become crowds. To train on the result:
--data.format coco --data.annotations FILE --data.images . (for both splits: {split}.json)
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data.voc import voc_to_coco
from detector.config.command_line import parse_options
from detector.config.errors import one_line_errors
from detector.config.files import Outputs, write_json
from detector.config.types import Option

USAGE = """python scripts/voc2coco.py ROOT SPLIT ... --out FILE [--classes NAME ...]

  python scripts/voc2coco.py datasets/VOCdevkit VOC2007/trainval VOC2012/trainval --out all.json

File names are relative to ROOT."""
PROGRAM_OPTIONS = {
    "root": Option(str, ..., "folder that holds ImageSets, or VOC2007, ..."),
    "splits": Option(list[str], ..., "trainval, VOC2007/test, ..."),
    "--out": Option(str, ..., "the file to write"),
    "--classes": Option(list[str], None, "names, in their order; null: all, sorted"),
}


def parse_arguments(argv: Sequence[str]) -> dict[str, Any]:
    """The program's options."""
    options, _ = parse_options(argv, usage=USAGE, program_options=PROGRAM_OPTIONS, sections=())
    return options


def main(argv: Sequence[str] | None = None) -> None:
    with one_line_errors():
        options = parse_arguments(sys.argv[1:] if argv is None else argv)
        out = Path(options["out"])
        Outputs(None).claim(out)
        content = voc_to_coco(Path(options["root"]), options["splits"], options["classes"])
        write_json(out, content)
        parts = ("images", "annotations", "categories")
        print(f"{out}: {', '.join(f'{len(content[part])} {part}' for part in parts)}")


if __name__ == "__main__":
    main()
