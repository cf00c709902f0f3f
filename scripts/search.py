"""Find an object again:  python scripts/search.py RUN --query IMAGE --gallery DIR --out DIR"""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.config.command_line import parse
from detector.config.errors import UserError, one_line_errors
from detector.config.files import RECORD, Outputs, was_written, write, write_json
from detector.config.types import Count, Fraction, Option
from detector.run.folder import existing_run

if TYPE_CHECKING:
    import numpy as np
    import torch

    from data.pictures import Picture, View
    from data.transforms import InputSize
    from detector.module import Detector
    from detector.retinanet import Predictions

USAGE = """python scripts/search.py RUN --query IMAGE --gallery DIR --out DIR [--box 10 20 30 60]

Looks for the object in a box of the query (x, y, width and height in pixels; without --box the one
that is detected with the highest score) among all objects that are detected in the images of the
gallery, other than the query itself. Writes search.json, the nearest objects by falling cosine:
file_name, category, bbox, score of the detection, cosine; and search.png, the query and these
objects in one picture. With --postprocess.class_agnostic true a place that is detected as two
classes is found once. The run must have been trained with an embedding head."""
PROGRAM_OPTIONS = {
    "run": Option(str, ..., "name of a run under runs/, or its path"),
    "--query": Option(str, ..., "an image that shows what is looked for"),
    "--gallery": Option(str, ..., "a folder of images to search"),
    "--out": Option(str, ..., "folder to write to"),
    "--box": Option(list[float], [], "where in the query it is: x y width height"),
    "--count": Option(Count, 8, "nearest objects that are shown"),
    "--checkpoint": Option(str, "best", "best, last or a file"),
    "--score": Option(Fraction, 0.3, "detections of lower scores are not searched"),
}
JSON, PICTURE = "search.json", "search.png"
SIDE = 320  # pixels of every image in the picture


class Found(NamedTuple):
    """An object: box (4,) xyxy in pixels of its image, label and score (-1 and nan of a given box),
    vector (E,) of length 1."""

    source: "Picture"
    box: "np.ndarray"
    label: int
    score: float
    vector: "np.ndarray"


def feed_net(
    detector: "Detector", views: "Sequence[View]", size: "InputSize"
) -> "tuple[Predictions, torch.Tensor, torch.Tensor]":
    """What the net makes of images of one input shape, the sizes of their contents, and those of
    the originals."""
    from data.pictures import feed

    shapes = [view.image.shape for view in views]
    batch = feed([view.small for view in views], shapes, size, detector.device)
    sizes = batch["sizes"], batch["original_sizes"]
    return detector.net(batch["images"], sizes[0]), *sizes


def read_box(detector: "Detector", view: "View", size: "InputSize", box: list[float]) -> Found:
    """The object in a box (x, y, width, height) of an image."""
    import torch

    from detector.embedding import read_vectors
    from losses.embedding import normalize

    x, y, width, height = box
    high, wide = view.image.shape[:2]
    if x >= wide or y >= high or x + width <= 0 or y + height <= 0:
        raise UserError(f"--box lies outside of {view.picture.path}, which is {wide}x{high} pixels")
    corners = torch.tensor([[[x, y, x + width, y + height]]], device=detector.device)
    with torch.inference_mode():
        predictions, sizes, original_sizes = feed_net(detector, [view], size)
        scale = (sizes / original_sizes).flip(-1).repeat(1, 2)[:, None]
        vectors = read_vectors(predictions, corners * scale)
    assert vectors is not None
    vector = normalize(vectors[0, 0].float()).cpu().numpy()
    return Found(view.picture, corners[0, 0].cpu().numpy(), -1, math.nan, vector)


def detect(
    detector: "Detector", views: "Sequence[View]", size: "InputSize", score: float
) -> list[Found]:
    """All objects that are detected in images of one input shape with at least `score`."""
    import torch

    from losses.embedding import normalize

    with torch.inference_mode():
        detections = detector.postprocess(*feed_net(detector, views, size))
    assert detections.vectors is not None
    columns = (*detections[:3], normalize(detections.vectors.float()))
    found = []
    for view, *arrays in zip(views, *(part.cpu().numpy() for part in columns), strict=True):
        for box, value, label, vector in zip(*arrays, strict=True):
            if label >= 0 and value >= score:
                found.append(Found(view.picture, box, int(label), float(value), vector))
    return found


def draw_found(found: Found, name: str, value: float) -> "np.ndarray":
    """The image of an object, with its box, a name and a value (nan: without one)."""
    import numpy as np

    from data.transforms import load_image
    from detector.evaluation.drawing import Marks, draw

    known = None if math.isnan(value) else np.array([value])
    marks = Marks(found.box[None], np.zeros(1, int), known)
    return draw(load_image(found.source.path), marks, [name], side=SIDE)


def row_of(found: Found, classes: Sequence[str]) -> dict[str, Any]:
    """An object as search.json has it."""
    left, top, right, bottom = found.box.tolist()
    row = {"file_name": found.source.name, "bbox": [left, top, right - left, bottom - top]}
    known = {"category": classes[found.label], "score": found.score} if found.label >= 0 else {}
    return row | known


def check(config: dict[str, Any], options: dict[str, Any]) -> None:
    """UserError for what cannot be searched."""
    if not Path(options["query"]).is_file():
        raise UserError(f"--query {options['query']} is not a file: give one image")
    if len(options["box"]) not in (0, 4) or min(options["box"][2:], default=1) <= 0:
        raise UserError("--box needs x, y, width and height, the last two above 0")
    if not config["model"]["embedding_loss"]:
        raise UserError(
            f"{options['run']} has no embedding head: train with --model.embedding.size 128 and "
            "--model.embedding_loss ArcFaceLoss"
        )


def search(config: dict[str, Any], options: dict[str, Any]) -> None:
    check(config, options)
    import torch

    from data.pictures import find_pictures, read_batches, read_view
    from data.transforms import InputSize
    from detector.evaluation.drawing import contact_sheet, encode
    from detector.run.assemble import as_evaluated, open_run

    out, data = Path(options["out"]), config["data"]
    (query_source,) = find_pictures([options["query"]], was_written, videos=False)
    gallery = find_pictures([options["gallery"]], was_written, videos=False)
    gallery = [x for x in gallery if x.path.resolve() != query_source.path.resolve()]
    Outputs(out / RECORD).claim(out / JSON, out / PICTURE)
    _, detector = open_run(options["run"], options["checkpoint"], config)
    detector.to("cuda" if torch.cuda.is_available() else "cpu")
    size = InputSize(data["size"], data["short"], data["long"])
    view = read_view(query_source, size, data["reduce"])
    ranked: list[tuple[float, Found]] = []
    images = 0
    with as_evaluated(config, detector.device):
        if options["box"]:
            query = read_box(detector, view, size, options["box"])
        elif objects := detect(detector, [view], size, options["score"]):
            query = max(objects, key=lambda found: found.score)
        else:
            raise UserError(
                f"nothing is detected in {query_source.path} with a score of {options['score']}: "
                "give a lower --score, or by --box where the object is"
            )
        for batch in read_batches(gallery, size, data["batch_size"], data["reduce"]):
            found = detect(detector, batch, size, options["score"])
            ranked += [(float(other.vector @ query.vector), other) for other in found]
            images += len(batch)
    if not ranked:
        raise UserError(
            f"nothing is detected in {images} images of {options['gallery']} beside the query with "
            f"a score of {options['score']}: give a lower --score, or another --gallery"
        )
    ranked = sorted(ranked, key=lambda pair: -pair[0])[: options["count"]]
    rows = [row_of(other, data["classes"]) | {"cosine": cosine} for cosine, other in ranked]
    write_json(out / JSON, {"query": row_of(query, data["classes"]), "nearest": rows})
    pictures = [draw_found(query, "query", query.score)]
    pictures += [draw_found(other, "cosine", cosine) for cosine, other in ranked]
    write(out / PICTURE, encode(contact_sheet(pictures, columns=3), ".png"))
    print(f"{out / PICTURE} and {JSON}: the nearest {len(rows)} objects in {images} images")


def parse_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of the run with what is changed in it, and the program's options."""
    config, options = parse(
        argv,
        usage=USAGE,
        program_options=PROGRAM_OPTIONS,
        base=lambda flags: existing_run(flags["run"]) / "config.yaml",
        sections=("data", "postprocess"),
    )
    return config, options


def main(argv: Sequence[str] | None = None) -> None:
    with one_line_errors():
        search(*parse_arguments(sys.argv[1:] if argv is None else argv))


if __name__ == "__main__":
    main()
