"""A trained detector -> one file that runs without this repository: ONNX, or torch.export.

The graph takes `images` (N, 3, H, W), uint8 RGB with the content at the top left, and `sizes` (N,
2), int64, height and width of the content; N is free, H and W are fixed. It returns `boxes` (N, D,
4), xyxy in pixels of `images`, `scores` (N, D), 0 where there is no box, and `labels` (N, D); with
an embedding head also `vectors` (N, D, E). With suppression in the graph these are `Detections`,
without it `Candidates`.
"""

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from detector.config.errors import UserError, not_installed
from detector.module import Detector
from detector.nms import Kept, Suppression
from detector.postprocess import Candidates, Detections, suppress
from detector.retinanet import MEAN, STD

INPUTS, OUTPUTS = ("images", "sizes"), ("boxes", "scores", "labels", "vectors")
METADATA = "metadata.json"  # in a file of torch.export
OPSET = 18  # of ONNX: what torch writes without converting
NORMALIZATION = f"in the graph: (images / 255 - {list(MEAN)}) / {list(STD)}, 0 outside of sizes"

torch.library.define(
    "detector::hard_nms", "(Tensor boxes, Tensor scores, float iou_threshold, int most) -> Tensor"
)


@torch.library.register_fake("detector::hard_nms")
def hard_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, most: int) -> Tensor:
    """Which of boxes (N, D, 4) stay, (N, D) bool; of each class the first `most`. `scores` (N, K,
    D) are 0 for the classes that a box is not of.

    torch knows its shape and cannot run it: what it does is written in ONNX, below.
    """
    return torch.empty(boxes.shape[:2], dtype=torch.bool, device=boxes.device)


def hard_nms_in_onnx(boxes: Any, scores: Any, iou_threshold: float, most: int) -> Any:
    """The same in operators of ONNX."""
    import onnxscript

    op: Any = onnxscript.opset18
    limits = op.Constant(value_ints=[most]), op.Constant(value_floats=[iou_threshold])
    above = op.Constant(value_floats=[0.0])
    rows = op.NonMaxSuppression(boxes, scores, *limits, above)  # image, class, box
    places = op.Gather(rows, op.Constant(value_ints=[0, 2]), axis=1)
    false, true = (op.Cast(op.Constant(value_int=bit), to=onnxscript.BOOL.dtype) for bit in (0, 1))
    nowhere = op.Expand(false, op.Shape(boxes, end=2))
    return op.ScatterND(nowhere, places, op.Expand(true, op.Shape(places, end=1)))


@dataclass(frozen=True, kw_only=True)
class SuppressionInGraph(Suppression):
    """Hard suppression of all images at once, for export to ONNX only."""

    num_classes: int

    def __call__(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Kept:
        classes = torch.arange(1 if self.class_agnostic else self.num_classes)[:, None]
        of_class = classes == (0 * labels if self.class_agnostic else labels)[:, None]
        limits = self.iou_threshold, self.max_detections
        of_classes = torch.where(of_class, scores[:, None], 0.0)
        stays = torch.ops.detector.hard_nms(boxes, of_classes, *limits)
        most = min(self.max_detections, scores.shape[1])
        return Kept(*reversed(torch.where(stays, scores, 0.0).topk(most)))


class Graph(nn.Module):
    """What is exported of a detector; `suppression` None: up to the candidates."""

    def __init__(self, detector: Detector, suppression: Suppression | None) -> None:
        super().__init__()
        self.net, self.choose = detector.net, detector.postprocess.choose
        self.suppression = suppression

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        candidates: Candidates = self.choose(self.net(images, sizes), sizes)
        outputs: Candidates | Detections = candidates
        if self.suppression is not None:
            outputs = suppress(candidates, self.suppression, sizes, sizes)
        return tuple(output for output in outputs if output is not None)


def describe(
    config: Mapping[str, Any], suppressed: bool, best_score: tuple[float, str] | None = None
) -> dict[str, str]:
    """What the file says of itself, as text; values are JSON where they are not plain.
    `best_score`: that of an evaluation and the split that it was found on."""
    data, options = config["data"], config["postprocess"]
    return {
        "classes": json.dumps(data["classes"]),
        "size": json.dumps(data["size"]),
        "normalization": NORMALIZATION,
        "score_threshold": json.dumps(options["score_threshold"]),
        "suppression": options["nms"] if suppressed else "none",
        "postprocess": json.dumps(options),
        "best_score": json.dumps(best_score),
    }


def to_onnx(
    detector: Detector,
    metadata: Mapping[str, str],
    images: Tensor,
    sizes: Tensor,
    *,
    suppress: bool,
) -> bytes:
    """The content of an ONNX file with or without hard suppression; `images` are an example of what
    it takes. Raises UserError where a package is missing."""
    require("onnx", "onnxscript", "onnxruntime")
    suppression = None
    if suppress:
        options = vars(detector.postprocess.suppression)
        num_classes = detector.criterion.num_classes
        suppression = SuppressionInGraph(**options, num_classes=num_classes)
    graph = Graph(detector, suppression).eval()
    with quiet(), torch.no_grad():
        program: Any = torch.onnx.export(
            graph,
            _repeat(images, sizes),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS[: 3 + (detector.net.embedding_head is not None)],
            dynamic_shapes=_free_batch(),
            custom_translation_table={torch.ops.detector.hard_nms.default: hard_nms_in_onnx},
        )
    program.model.metadata_props.update(metadata)
    content: bytes = program.model_proto.SerializeToString()
    return content


def to_torch(
    detector: Detector, metadata: Mapping[str, str], images: Tensor, sizes: Tensor
) -> bytes:
    """The content of a .pt2 file of the candidates; arguments as of `to_onnx`."""
    file = io.BytesIO()
    with quiet(), torch.no_grad():
        graph = Graph(detector, None).eval()
        program = torch.export.export(graph, _repeat(images, sizes), dynamic_shapes=_free_batch())
        torch.export.save(program, file, extra_files={METADATA: json.dumps(dict(metadata))})
    return file.getvalue()


def _repeat(images: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The first image twice: of a single one torch takes N to be fixed."""
    return images[[0, 0]].contiguous(), sizes[[0, 0]]


def _free_batch() -> tuple[Any, Any]:
    batch = torch.export.Dim("batch", min=1)
    return {0: batch}, {0: batch}


def require(*packages: str) -> None:
    """Raises UserError for the first package that is not installed."""
    for package in packages:
        if find_spec(package) is None:
            raise UserError(not_installed(package))


@contextmanager
def quiet() -> Iterator[None]:
    """Without what exporters tell their own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
