"""Every suppression of candidates that were saved once, on drawn candidates without a net."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detector.config.errors import UserError
from detector.evaluation import compare_nms
from detector.evaluation.coco import coco_figures
from detector.evaluation.compare_nms import (
    GAUSSIAN,
    KINDS,
    compare_all,
    format_lines,
    suppress_images,
)
from detector.evaluation.results import ImageCandidates, to_results
from detector.nms import Suppression
from detector.postprocess import Candidates, suppress

CONFIGURED = Suppression(iou_threshold=0.5, score_threshold=0.01)
Scene = tuple[dict[int, ImageCandidates], dict[str, Any]]


@pytest.fixture(scope="module")
def scene() -> Scene:
    """24 images of 1 to 4 objects, three candidates for each; the eighth has no candidates."""
    generator = torch.Generator().manual_seed(0)
    candidates, annotations = {}, []
    for image_id in range(24):
        count = image_id % 4 + 1
        corners = 80 * torch.rand(count, 2, generator=generator)
        boxes = torch.cat([corners, corners + 20], dim=1)
        annotations += [
            {"image_id": image_id, "category_id": 5, "bbox": [*box[:2], 20, 20]}
            for box in boxes.tolist()
        ]
        boxes = boxes.repeat(3, 1) + 2 * torch.randn(3 * count, 4, generator=generator)
        scores = torch.rand(3 * count, generator=generator)
        kept = slice(0 if image_id == 7 else None)
        labels, size = torch.zeros(3 * count, dtype=torch.int64), torch.tensor([100, 100])
        candidates[image_id] = ImageCandidates(
            boxes[kept], scores[kept], labels[kept], size, 2 * size
        )
    for row in annotations:  # the originals are twice as large
        row["bbox"] = [2 * value for value in row["bbox"]]
    images = [{"id": image_id} for image_id in candidates]
    truth = {"images": images, "categories": [{"id": 5, "name": "disk"}]}
    return candidates, {**truth, "annotations": annotations}


def test_every_line_has_the_figures_of_its_suppression(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Image by image, without padding."""
    monkeypatch.setattr(compare_nms, "BATCH", 5)
    candidates, truth = scene
    lines = compare_all(candidates, truth, [5], CONFIGURED, draws=0)
    assert (lines[0].kind, lines[0].threshold) == ("hard", 0.5)
    assert len({line[:2] for line in lines}) == len(lines) == 5 * 5 + 2
    for line in lines:
        own = {**KINDS, **GAUSSIAN}[line.kind]
        setting = replace(CONFIGURED, iou_threshold=line.threshold or 0.5, **own)
        rows = []
        for image_id, image in candidates.items():
            if image_id == 7:
                continue
            batch = Candidates(*(part[None] for part in image[:3]))
            detections = suppress(batch, setting, image.size[None], image.original_size[None])
            rows += to_results(detections, [image_id], [5])
        expected = coco_figures(truth, rows, full=False).summary
        assert line.figures == pytest.approx(expected, abs=1e-12), line.kind
        assert line.against is None


def test_images_without_candidates_have_no_rows(scene: Scene) -> None:
    candidates, _ = scene
    assert not suppress_images({7: candidates[7]}, CONFIGURED, [5])


def test_verdicts_are_corrected_for_all_lines(scene: Scene) -> None:
    candidates, truth = scene
    first, *lines = compare_all(candidates, truth, [5], CONFIGURED, draws=100)
    assert first.against is None
    comparisons = [line.against for line in lines if line.against is not None]
    assert len(comparisons) == len(lines) == 26
    ordered = sorted(comparison.p for comparison in comparisons)
    expected = np.maximum.accumulate([(26 - rank) * p for rank, p in enumerate(ordered)])
    adjusted = sorted(comparison.adjusted for comparison in comparisons)
    assert adjusted == pytest.approx(expected.clip(max=1))
    alone = sum(comparison.p < 0.05 for comparison in comparisons)
    together = [c for c in comparisons if c.verdict != "no difference shown"]
    assert 0 < len(together) < alone
    for line in lines:
        assert line.against is not None
        difference = line.figures["AP"] - first.figures["AP"]
        assert line.against.difference == pytest.approx(difference, abs=1e-12)
        assert line.against.training == 0  # the same net: only the images vary


def test_the_text_has_a_line_for_each(scene: Scene) -> None:
    candidates, truth = scene
    lines = compare_all(candidates, truth, [5], CONFIGURED, draws=10)
    heads, first, *rest = format_lines(lines).splitlines()
    assert heads.split()[4:] == ["AP75", "difference", "in", "AP", "(95", "%)", "p", "verdict"]
    assert first.split()[:2] == ["hard", "0.50"]
    assert first.endswith("the baseline")
    verdicts = [line.against.verdict for line in lines if line.against is not None]
    assert all(text.endswith(verdict) for text, verdict in zip(rest, verdicts, strict=True))
    assert rest[-1].startswith("soft, Gaussian 0.5     -")
    without = format_lines([line._replace(against=None) for line in lines])
    assert without.splitlines()[0].endswith("AP75")


def test_nothing_to_find_is_one_clear_line(scene: Scene) -> None:
    candidates, truth = scene
    with pytest.raises(UserError, match="no object"):
        compare_all(candidates, {**truth, "annotations": []}, [5], CONFIGURED, draws=10)


def test_a_broken_file_is_as_if_there_were_none(tmp_path: Path) -> None:
    path = tmp_path / "candidates.pt"
    one = ImageCandidates(
        torch.rand(2, 4), torch.rand(2), torch.tensor([0, 1]), *[torch.tensor([9, 9])] * 2
    )
    compare_nms.save(path, {"a": 1}, {7: one})
    again = compare_nms.load(path, {"a": 1})
    assert again is not None
    assert all(torch.equal(a, b) for a, b in zip(again[7], one, strict=True))
    assert compare_nms.load(path, {"a": 2}) is None
    path.write_bytes(path.read_bytes()[:100])
    assert compare_nms.load(path, {"a": 1}) is None
    assert compare_nms.load(tmp_path / "none.pt", {}) is None
