"""Write a trained detector as one file:  python scripts/export.py RUN --out FILE.onnx

It is run by  python scripts/predict.py FILE.onnx IMAGE|FOLDER --out DIR
"""

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from detector.config.command_line import parse
from detector.config.errors import UserError, one_line_errors
from detector.config.files import Outputs, write
from detector.config.types import Count, Option
from detector.run.folder import existing_run

if TYPE_CHECKING:
    from detector.module import Batch, Detector
    from detector.run.exported import Exported

USAGE = """python scripts/export.py RUN --out FILE.onnx [--suppression false] [--size '[480, 640]']
       python scripts/export.py RUN --format torch --out FILE.pt2

The file holds the net, its normalization, the choice of candidates and, in ONNX, hard suppression;
classes, input size and score threshold are in its metadata. Afterwards it is compared with the net
on validation images, or on noise where there are none: exit status 1 if a box or a score differs by
more than 1e-4 (boxes: of the longer side of the input)."""
PROGRAM_OPTIONS = {
    "run": Option(str, ..., "name of a run under runs/, or its path"),
    "--out": Option(str, ..., "the file to write, .onnx or .pt2"),
    "--format": Option(Literal["onnx", "torch"], "onnx", "torch: of torch.export"),
    "--suppression": Option(bool | None, None, "in the graph; null: where it can be"),
    "--size": Option(tuple[Count, Count] | None, None, "height, width; null: data.size"),
    "--checkpoint": Option(str, "best", "best, last or a file"),
    "--images": Option(Count, 8, "of the validation split, for the comparison"),
}
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
ROUNDS = 5  # of timing


def with_size(config: dict[str, Any], size: list[int] | None) -> dict[str, Any]:
    """The configuration with one input size: the given one, or else its own."""
    data = config["data"]
    if size is None and data["short"]:
        raise UserError(
            "the images of this run have several sizes (data.short), a graph has one: give it by "
            f"--size, such as --size '[640, {data['long']}]'"
        )
    return {**config, "data": {**data, "size": size or data["size"], "short": None}}


def puts_suppression_in(config: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether suppression is in the graph. Why it cannot be is printed, or a UserError where it was
    asked for."""
    kind, reason = config["postprocess"]["nms"], None
    if options["format"] == "torch":
        reason = "torch.export has no suppression for several images at once"
    elif kind != "hard":
        reason = f"ONNX has an operator for hard suppression, none for postprocess.nms {kind}"
    if reason and options["suppression"]:
        raise UserError(f"--suppression true: {reason}; without it the file gives candidates")
    if reason and options["suppression"] is None:
        print(f"the file gives candidates, from which predict.py chooses: {reason}")
    return reason is None and options["suppression"] is not False


def load_batches(config: dict[str, Any], count: int) -> "tuple[list[Batch], str]":
    """The first `count` images of the validation split in batches, and what they are called; noise
    where the split cannot be read."""
    import torch

    from data import DataError
    from data.datamodule import DataModule
    from data.transforms import place

    batches: list[Batch] = []
    try:
        options = {**config["data"], "workers": 0, "cache": False}
        for batch in DataModule(**options, seed=config["seed"]).val_dataloader():
            batches.append({name: part[:count] for name, part in batch.items()})
            count -= len(batches[-1]["images"])
            if not count:
                break
        return batches, f"{sum(len(batch['images']) for batch in batches)} validation images"
    except DataError as error:
        height, width = config["data"]["size"]
        noise = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8).numpy()
        image, content = place(noise, (height, width))
        sizes = torch.tensor([content])
        batch = {"images": image[None], "sizes": sizes, "original_sizes": sizes}
        return [batch], f"noise, for want of validation images ({error})"


def check(detector: "Detector", exported: "Exported", batches: "list[Batch]", images: str) -> bool:
    """Whether the file gives what the net gives, which is printed with the time of both."""
    import torch

    from detector.run.exported import compare
    from scripts.benchmark.timing import describe_machine, take_turns

    result = compare(detector, exported, batches)
    print(f"on {images}: {result}")
    calls = {"net": lambda: detector(batches[0]), "file": lambda: exported(batches[0])}
    with torch.inference_mode():
        times = take_turns(calls, ROUNDS)
    count = len(batches[0]["images"])
    net, file = (f"{1000 * statistics.median(x) / count:.1f} ms" for x in times.values())
    print(f"{describe_machine('cpu')}, batch of {count}, of an image: net {net}, file {file}")
    return not result.different


def find_best_score(config: dict[str, Any], options: dict[str, Any]) -> tuple[float, str] | None:
    """That of the run's evaluation and its split, None where there is none of these weights and
    settings."""
    from detector.evaluation.provenance import read_best_score
    from detector.run.folder import checkpoint_file

    folder = existing_run(options["run"])
    path = folder / "eval" / "metrics.json"
    try:
        return read_best_score(path, checkpoint_file(folder, options["checkpoint"]), config, "")
    except UserError:
        return None


def export(config: dict[str, Any], options: dict[str, Any]) -> bool:
    """Whether the file that is written gives what the net gives."""
    suppress = puts_suppression_in(config, options)
    out = Path(options["out"])
    Outputs(None).claim(out)

    from detector.run.assemble import open_run
    from detector.run.export import describe, to_onnx, to_torch
    from detector.run.exported import Exported

    _, detector = open_run(options["run"], options["checkpoint"], config)
    batches, images = load_batches(config, options["images"])
    example = batches[0]["images"], batches[0]["sizes"]
    metadata = describe(config, suppress, find_best_score(config, options))
    if options["format"] == "onnx":
        content = to_onnx(detector, metadata, *example, suppress=suppress)
    else:
        content = to_torch(detector, metadata, *example)
    write(out, content)
    print(f"{out}: {len(content) / 1e6:.1f} MB")
    return check(detector, Exported(out), batches, images)


def parse_arguments(argv: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration of the run with what is changed in it, and the program's options."""
    config, options = parse(
        argv,
        usage=USAGE,
        program_options=PROGRAM_OPTIONS,
        base=lambda flags: existing_run(flags["run"]) / "config.yaml",
        sections=("data", "postprocess"),
    )
    suffix = SUFFIXES[options["format"]]
    if not options["out"].endswith(suffix):
        raise UserError(f"--out {options['out']}: --format {options['format']} ends in {suffix}")
    return with_size(config, options["size"]), options


def main(argv: Sequence[str] | None = None) -> None:
    with one_line_errors():
        if not export(*parse_arguments(sys.argv[1:] if argv is None else argv)):
            raise SystemExit(1)


if __name__ == "__main__":
    main()
