"""A file of scripts/export.py, run as the detector it came from, and compared with it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detector.config.errors import UserError
from detector.module import Batch, Detector
from detector.postprocess import Candidates, Detections, suppress
from detector.run.assemble import make_suppression
from detector.run.export import INPUTS, METADATA, require

TOLERANCE = 1e-4  # of scores, and of boxes as a share of the longer side of the input
Run = Callable[[Tensor, Tensor], Sequence[Tensor]]


class Exported:
    """Called with a batch it gives `Detections` like a Detector, on the CPU. What suppression is
    not in the graph is done here.

    `classes` and `size` (height and width within which images are placed) are the file's. Raises
    UserError for a file that is missing, damaged or not of scripts/export.py.
    """

    device = torch.device("cpu")

    def __init__(self, path: str | Path) -> None:
        if not Path(path).is_file():
            raise UserError(f"there is no file {path}")
        self.run, metadata = (_open_torch if Path(path).suffix == ".pt2" else _open_onnx)(
            Path(path)
        )
        try:
            options = json.loads(metadata["postprocess"])
            self.classes: list[str] = json.loads(metadata["classes"])
            self.size: list[int] = json.loads(metadata["size"])
            self.is_suppressed = metadata["suppression"] != "none"
            self.best: list[Any] | None = json.loads(metadata.get("best_score", "null"))
        except KeyError as error:
            raise UserError(f"{path} says no {error}: it is not of scripts/export.py") from None
        self.path, self.options = path, options
        self.suppression = make_suppression(options)

    def __call__(self, batch: Batch) -> Detections:
        """Detections of a batch in pixels of the original images."""
        sizes, original_sizes = batch["sizes"], batch["original_sizes"]
        outputs = self.run(batch["images"], sizes)
        if not self.is_suppressed:
            return suppress(Candidates(*outputs), self.suppression, sizes, original_sizes)
        scale = (original_sizes / sizes).float().flip(-1).repeat(1, 2)  # x, y, x, y
        return Detections(outputs[0] * scale[:, None], *outputs[1:])

    def configure(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration with the classes, input size and postprocessing of the file, which
        computes in float32."""
        fixed = {"classes": self.classes, "size": self.size, "short": None}
        trainer = {**config["trainer"], "precision": "32-true"}
        return {
            **config,
            "data": {**config["data"], **fixed},
            "postprocess": self.options,
            "trainer": trainer,
        }

    def best_score(self) -> tuple[float, str]:
        """The score threshold that was best when the file was written, and on which split."""
        if self.best is None:
            raise UserError(
                f"--score best: {self.path} has none: evaluate the run with eval.py and export it "
                "again, or give a number"
            )
        score, split = self.best
        return score, split


def _open_onnx(path: Path) -> tuple[Run, Mapping[str, str]]:
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no name outside of its compiled part
        raise UserError(f"{path}: onnxruntime cannot open it: {_first_line(error)}") from None

    def run(*inputs: Tensor) -> list[Tensor]:
        given = {name: x.numpy() for name, x in zip(INPUTS, inputs, strict=True)}
        return [torch.from_numpy(output) for output in session.run(None, given)]

    return run, session.get_modelmeta().custom_metadata_map


def _open_torch(path: Path) -> tuple[Run, Mapping[str, str]]:
    files = {METADATA: ""}
    try:
        program = torch.export.load(path, extra_files=files)
    except Exception as error:  # whatever an archive of something else leads to
        raise UserError(f"{path}: torch.export cannot open it: {_first_line(error)}") from None
    return torch.no_grad()(program.module()), json.loads(files[METADATA] or "{}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class Comparison(NamedTuple):
    """The `kind` of boxes that a net and its export give: how many the net gives, how many of one
    side are missing on the other, and the largest difference of the others in pixels of the input
    and in score."""

    kind: str
    total: int
    different: int
    pixels: float
    score: float

    def __str__(self) -> str:
        if not self.total + self.different:
            return f"no {self.kind} to compare: lower --postprocess.score_threshold"
        largest = f"largest difference {self.pixels:.1e} pixels, score {self.score:.1e}"
        if self.different:
            differ = f"{self.different} of {self.total} {self.kind} differ from the net's"
            return f"{differ}; of the others {largest}"
        return f"all {self.total} {self.kind} equal the net's, {largest}"


def compare(detector: Detector, exported: Exported, batches: Sequence[Batch]) -> Comparison:
    """Detections, or candidates where suppression is not in the graph."""
    kind = "detections" if exported.is_suppressed else "candidates"
    total = Comparison(kind, 0, 0, 0.0, 0.0)
    for batch in batches:
        images, sizes = batch["images"], batch["sizes"]
        with torch.inference_mode():
            candidates = detector.postprocess.choose(detector.net(images, sizes), sizes)
            expected: Candidates | Detections = candidates
            if exported.is_suppressed:
                expected = suppress(candidates, detector.postprocess.suppression, sizes, sizes)
            actual = exported.run(images, sizes)
        tolerance = torch.tensor([TOLERANCE * max(images.shape[-2:]), TOLERANCE])
        for image in zip(*expected[:3], *actual[:3], strict=True):
            count, different, pixels, score = compare_image(image[:3], image[3:], tolerance)
            total = Comparison(
                kind,
                total.total + count,
                total.different + different,
                max(total.pixels, pixels),
                max(total.score, score),
            )
    return total


def compare_image(
    expected: Sequence[Tensor], actual: Sequence[Tensor], tolerance: Tensor
) -> tuple[int, int, float, float]:
    """The figures of a Comparison for one image: boxes (D, 4), scores (D,), labels (D,) in any
    order. `tolerance` (2,): of pixels and of score."""
    (boxes, scores, labels), other = ([x[part[1] > 0] for x in part] for part in (expected, actual))
    differences = [torch.cdist(boxes, other[0], p=torch.inf), (scores[:, None] - other[1]).abs()]
    difference = torch.stack(differences, -1)
    equal = (difference <= tolerance).all(-1) & (labels[:, None] == other[2])
    counts, missing = equal.shape, [int((~equal.any(dim)).sum()) for dim in (1, 0)]
    different = max(sum(missing), abs(counts[0] - counts[1]))
    if not equal.any():
        return counts[0], different, 0.0, 0.0
    nearest = difference.masked_fill(~equal[..., None], torch.inf).amin(1)[equal.any(1)]
    return counts[0], different, *nearest.amax(0).tolist()
