"""Say what may be wrong with data:  python scripts/check_data.py --data.root DIR

What a training checks anyhow, and what takes a look into every image: files that cannot be read or
are of another size, copies, images of val that are or look like those of train, odd labels, and
objects that no anchor fits. Exit status 1 with errors, 0 without.
"""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.config.command_line import parse
from detector.config.errors import one_line_errors
from detector.config.files import RECORD, Outputs, write, write_json
from detector.config.types import Natural, Option

if TYPE_CHECKING:
    import numpy as np

    from data.check import Finding
    from data.datamodule import DataModule
    from data.split import Split
    from detector.evaluation.table import Table

USAGE = """python scripts/check_data.py [--config FILE] [--data.root DIR] [--out DIR]

  python scripts/check_data.py --data.root datasets/mine
  python scripts/check_data.py --config configs/retinanet_r18.yaml --data.root mine --out checked

Takes the keys of train.py. DIR gets report.txt, report.json and worst.jpg, odd images."""
PROGRAM_OPTIONS = {
    "--out": Option(str | None, None, "folder for the report and a picture"),
    "--count": Option(Natural, 500, "training images whose objects anchors are tried on"),
}
TEXT, JSON, PICTURE = "report.txt", "report.json", "worst.jpg"
QUANTILES = {"smallest": 0, "1 %": 0.01, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "largest": 1}
FEW = 20  # rows of a table
ON_SHEET, SIDE = 12, 400  # pictures, and pixels of each


def parse_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration, and the program's options."""
    return parse(argv, usage=USAGE, program_options=PROGRAM_OPTIONS)


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the report; returns the exit status, 1 if there is an error in the data."""
    with one_line_errors():
        return check_data(*parse_arguments(sys.argv[1:] if argv is None else argv))


def check_data(config: dict[str, Any], options: dict[str, Any]) -> int:
    # imported here, so that a mistake on the command line is answered at once
    from data import DataError
    from data.check import Finding
    from data.datamodule import DataModule

    out = Path(options["out"]) if options["out"] else None
    if out:
        Outputs(out / RECORD).claim(*(out / name for name in (TEXT, JSON, PICTURE)))
    data = DataModule(**config["data"], seed=config["seed"])
    tables: list[Table] = []
    try:
        data.read(["train", "val"])
        findings = find_all(data, config, options["count"])
        tables = [count_classes(data), measure_objects(data, config)]
    except DataError as error:  # without images or annotations there is nothing to look at
        findings = [Finding("error", "reading", str(error))]
    page = format_page(data, tables, findings)
    print(page)
    if out:
        write(out / TEXT, f"{page}\n")
        write_json(out / JSON, describe(config, tables, findings))
        draw_worst(data, findings, out / PICTURE)
    return int(any(finding.level == "error" for finding in findings))


def find_all(data: "DataModule", config: dict[str, Any], count: int) -> "list[Finding]":
    """What the loader finds, what only the files tell, and what the model cannot do."""
    from data.check_files import check_counts, check_files, check_labels, check_likeness, inspect

    workers = data.options.workers
    facts = {part: inspect(split, part, workers) for part, split in data.splits.items()}
    findings = [finding for finding in data.findings if finding.kind != "leaks"]
    for part, split in data.splits.items():
        findings += check_files(part, split, facts[part]) + check_labels(part, split)
        findings += check_counts(part, split, config["postprocess"]["max_detections"])
    train, val = data.splits["train"], data.splits["val"]
    findings += check_likeness(train, facts["train"], val, facts["val"])
    findings += try_anchors(data, config["model"], count)
    return sorted(findings, key=lambda finding: finding.level)


def try_anchors(data: "DataModule", model: dict[str, Any], count: int) -> "list[Finding]":
    """Objects that overlap no anchor enough to be learned otherwise than by force."""
    import numpy as np
    import torch

    from data.check import Finding, worst_paths
    from detector.anchors import AnchorGenerator
    from detector.matching import match

    split, generator = data.splits["train"], AnchorGenerator(**model["anchors"])
    options = {**model["match"], "force": "none"}
    objects, unmatched = 0, []
    chosen = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int))
    for index in chosen.tolist() if count else ():
        shape, boxes = place_objects(data, split, index)
        if not len(boxes):
            continue
        cells = [[-(-side // stride) for side in shape] for stride in generator.strides]
        is_object = torch.ones(1, len(boxes), dtype=torch.bool)
        batch = {"boxes": boxes[None], "valid": is_object, "ignore": ~is_object}
        batch["labels"] = torch.zeros(1, len(boxes), dtype=torch.int64)
        labels, _, rows = match(generator(shape, cells), batch, 1, **options)
        objects += len(boxes)
        unmatched += [index] * (len(boxes) - len(rows[labels == 0].unique()))
    if not unmatched:
        return []
    forced = "one by force" if model["match"]["force"] != "none" else "none"
    line = (
        f"train: {len(unmatched)} of {objects} objects in {len(chosen)} images fit no anchor, and "
        f"get {forced}: see the table of sizes, model.anchors.sizes and .ratios, and data.size"
    )
    return [Finding("warning", "anchors", line, worst_paths(split, np.array(unmatched)))]


def place_objects(data: "DataModule", split: "Split", index: int) -> tuple[tuple[int, int], Any]:
    """Height and width of the input, and the objects of an image in it, without crowds (G, 4)."""
    import torch

    from data.transforms import STRIDE

    size = split.sizes[index].tolist()
    shape = data.input_size.shape_for(*size)
    scale = min(shape[0] / size[0], shape[1] / size[1])
    rows = split.rows(index)
    boxes = torch.from_numpy(split.boxes[rows][~split.ignore[rows]]) * scale
    height, width = (-(-side // STRIDE) * STRIDE for side in shape)
    return (height, width), boxes


def count_classes(data: "DataModule") -> "Table":
    import numpy as np

    from detector.evaluation.table import Table

    counts = [
        np.bincount(split.labels[~split.ignore], minlength=len(data.classes)).tolist()
        for split in data.splits.values()
    ]
    rows = [[name, *row] for name, *row in zip(data.classes, *counts, strict=True)]
    rows.sort(key=lambda row: -row[1])
    return Table(["objects", *data.splits], rows, ["", *["d"] * len(counts)])


def measure_objects(data: "DataModule", config: dict[str, Any]) -> "Table":
    """Sizes of objects in the input, beside those of the anchors."""
    import numpy as np

    from detector.evaluation.table import Table

    rows: list[list[Any]] = []
    for part, split in data.splits.items():
        boxes = [place_objects(data, split, index)[1] for index in range(len(split))]
        sides = np.concatenate([(x[:, 2:] - x[:, :2]).numpy() for x in boxes])
        sizes = np.sqrt(sides.prod(axis=1))
        values = np.quantile(sizes, list(QUANTILES.values())).tolist() if len(sizes) else []
        rows.append([part, *values])
    anchors = config["model"]["anchors"]
    octave = [2 ** (step / anchors["scales"]) for step in range(anchors["scales"])]
    sizes = sorted(size * factor for size in anchors["sizes"] for factor in octave)
    rows.append(["anchors", sizes[0], None, None, None, None, sizes[-1]])
    heads = ["pixels in the input", *QUANTILES]
    return Table(heads, rows, ["", *[".0f"] * len(QUANTILES)])


def format_page(
    data: "DataModule", tables: "Sequence[Table]", findings: "Sequence[Finding]"
) -> str:
    counts = Counter(finding.level for finding in findings)
    lines = [f"{finding.level}: {finding.line}" for finding in findings]
    shown = [table._replace(rows=shorten(table.rows)) for table in tables]
    blocks = ["\n".join(data.describe()), *(table.render() for table in shown)]
    found = ((level, counts[level]) for level in ("error", "warning"))
    lines.append(", ".join(f"{count} {level}{'s' * (count != 1)}" for level, count in found))
    blocks.append("\n".join(lines))
    return "\n\n".join(block for block in blocks if block)


def shorten(rows: "Sequence[Sequence[Any]]") -> "Sequence[Sequence[Any]]":
    """The first and the last of many."""
    return rows if len(rows) <= FEW else [*rows[: FEW // 2], ["..."], *rows[-FEW // 2 :]]


def describe(
    config: Mapping[str, Any], tables: "Sequence[Table]", findings: "Sequence[Finding]"
) -> dict[str, Any]:
    """The page as plain values; images of a finding without limit."""
    return {
        "data": config["data"],
        "findings": [finding._asdict() for finding in findings],
        "tables": [[dict(zip(t.heads, row, strict=False)) for row in t.rows] for t in tables],
    }


def draw_worst(data: "DataModule", findings: "Sequence[Finding]", path: Path) -> None:
    """Images of the findings with their boxes, of every finding in turn; nothing without any."""
    import cv2

    from detector.evaluation.drawing import contact_sheet

    chosen: dict[str, str] = {}  # path -> kind of the finding
    for turn in range(ON_SHEET):
        for finding in findings:
            if turn < len(finding.images) and len(chosen) < ON_SHEET:
                chosen.setdefault(finding.images[turn], finding.kind)
    places = {
        x: (part, k) for part, split in data.splits.items() for k, x in enumerate(split.paths)
    }
    drawn = [draw_image(data, kind, *places[image]) for image, kind in chosen.items()]
    if pictures := [picture for picture in drawn if picture is not None]:
        sheet = contact_sheet(pictures, columns=3)[..., ::-1]  # OpenCV orders colors BGR
        write(path, cv2.imencode(path.suffix, sheet)[1].tobytes())


def draw_image(data: "DataModule", kind: str, part: str, index: int) -> "np.ndarray | None":
    """One image under what is odd about it; None where it cannot be read."""
    from data import DataError
    from data.transforms import load_annotated
    from detector.evaluation.drawing import Marks, add_title, draw

    split = data.splits[part]
    height, width = split.sizes[index].tolist()
    try:
        image = load_annotated(split.paths[index], (height, width))
    except DataError:
        return None
    rows = split.rows(index)
    marks = Marks(split.boxes[rows], split.labels[rows], ignore=split.ignore[rows])
    picture = draw(image, marks, data.classes, side=SIDE)
    return add_title(picture, f"{kind}: {part}, {Path(split.paths[index]).name}")


if __name__ == "__main__":
    sys.exit(main())
