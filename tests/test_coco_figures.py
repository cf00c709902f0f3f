"""The reference is plain pycocotools: COCO, loadRes, COCOeval, summarize."""

import copy
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detector.evaluation.coco import Figures, coco_figures, evaluate, fast_tools, format_figures

SUMMARY = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
SUMMARY += ["AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
VOC = {"VOC07": 0.5, "VOC12": 0.5}
PLAIN = (COCO, COCOeval)
Row = dict[str, Any]
Capture = pytest.CaptureFixture[str]


def box(image_id: int, bbox: list[float], category_id: int = 1, **more: float) -> Row:
    return {"image_id": image_id, "category_id": category_id, "bbox": bbox, **more}


def truth_of(
    boxes: list[Row], images: Iterable[int] = (0, 1), categories: Iterable[int] = (1,)
) -> Row:
    return {
        "images": [{"id": image_id} for image_id in images],
        "categories": [{"id": key, "name": f"class {key}"} for key in categories],
        "annotations": [{"id": 1 + index, **row} for index, row in enumerate(boxes)],
    }


def random_set(seed: int) -> tuple[Row, list[Row]]:
    """Sparse ids, crowds, empty images, a class without objects, equal scores, all sizes."""
    rng = np.random.default_rng(seed)
    categories = (3, 17, 90, 4)
    objects, results = [], []
    images = range(900_000, 900_084, 7)
    for image_id in images:
        for _ in range(rng.integers(9) if image_id % 4 else 0):
            extent = np.exp(rng.uniform(np.log(8), np.log(300))) * rng.uniform(0.7, 1.3, 2)
            bbox = np.concatenate([rng.uniform(0, 300, 2), extent])
            crowd = int(rng.random() < 0.1)
            area = float(extent.prod() * rng.uniform(0.5, 1))  # that of a mask
            category = int(rng.choice(categories[:3]))
            objects.append(box(image_id, bbox.tolist(), category, iscrowd=crowd, area=area))
            for _ in range(rng.integers(4)):
                near = (bbox + rng.normal(0, 0.1, 4) * np.tile(extent, 2)).clip(1).tolist()
                score = round(float(rng.random()), 1)
                label = category if rng.random() < 0.8 else int(rng.choice(categories))
                results.append(box(image_id, near, label, score=score))
        for _ in range(rng.integers(4)):
            results.append(box(image_id, [10.0, 10.0, 50.0, 40.0], 3, score=0.3))
    return truth_of(objects, images, categories), results


def plain_evaluation(ground_truth: Row, results: list[Row]) -> COCOeval:
    coco = COCO()
    coco.dataset = copy.deepcopy(ground_truth)
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
    for step in (evaluation.evaluate, evaluation.accumulate, evaluation.summarize):
        step()
    return evaluation


@pytest.mark.parametrize("tools", [PLAIN, fast_tools()], ids=["pycocotools", "fastest"])
@pytest.mark.parametrize("seed", range(5))
def test_figures_equal_plain_pycocotools_whole_and_short(seed: int, tools: Any) -> None:
    ground_truth, results = random_set(seed)
    reference = plain_evaluation(ground_truth, results)
    figures = coco_figures(ground_truth, results, tools=tools)
    assert list(figures.summary) == SUMMARY
    assert 0.1 < figures.summary["AP"] < 0.9
    expected = np.where(reference.stats == -1, math.nan, reference.stats)
    assert list(figures.summary.values()) == pytest.approx(expected, abs=1e-15, nan_ok=True)
    for k, key in enumerate([3, 4, 17, 90]):
        cells = reference.eval["precision"][:, :, k, 0, 2]
        objects = [a for a in ground_truth["annotations"] if a["category_id"] == key]
        expected_row = {"AP": cells.mean(), "AP50": cells[0].mean()}
        expected_row = expected_row if key != 4 else dict.fromkeys(expected_row, math.nan)
        expected_row["objects"] = sum(not row["iscrowd"] for row in objects)
        row = dict(figures.per_class[f"class {key}"])
        assert {row.pop("VOC07") >= 0, row.pop("VOC12") >= 0} == {key != 4}
        assert row == pytest.approx(expected_row, nan_ok=True)
        assert figures.curves[f"class {key}"] == pytest.approx(cells[0].tolist())
    short = coco_figures(ground_truth, results, full=False, tools=tools)
    assert short.summary == pytest.approx({name: figures.summary[name] for name in SUMMARY[:3]})
    assert not short.voc
    assert not short.curves
    for name, row in short.per_class.items():
        assert row == pytest.approx({key: figures.per_class[name][key] for key in row}, nan_ok=True)


def test_both_tools_agree_in_every_cell() -> None:
    """A class without objects, no detections at all, ids from 0, 500 detections in an image."""
    pytest.importorskip("faster_coco_eval", reason="needs the extra 'fast'")
    sets = [random_set(seed) for seed in range(20)]
    sets += [(sets[0][0], [])]
    many = [box(0, [k % 7, 0, 10, 10], score=1 - k / 1000) for k in range(500)]
    sets += [(truth_of([box(0, [0, 0, 10, 10], id=0)]), many)]
    for ground_truth, results in sets:
        one, other = (evaluate(ground_truth, results, tools=t) for t in (PLAIN, fast_tools()))
        assert one.params.recThrs.tolist() == other.params.recThrs.tolist()
        for name in ("precision", "recall"):
            np.testing.assert_allclose(one.eval[name], other.eval[name], rtol=0, atol=1e-15)


@pytest.mark.parametrize("tools", [PLAIN, fast_tools()], ids=["pycocotools", "fastest"])
def test_more_than_a_hundred_detections_have_figures_of_their_own(tools: Any) -> None:
    """150 objects in a row, all detected: 100 of them in the figures of COCO."""
    boxes = [[20.0 * k, 0.0, 10.0, 10.0] for k in range(150)]
    truth = truth_of([box(0, bbox) for bbox in boxes])
    results = [box(0, bbox, score=1 - k / 1000) for k, bbox in enumerate(boxes)]
    plain = coco_figures(truth, results, tools=tools)
    more = coco_figures(truth, results, max_detections=300, tools=tools)
    assert {name: more.summary[name] for name in plain.summary} == pytest.approx(
        plain.summary, nan_ok=True
    )
    assert more.per_class["class 1"] == plain.per_class["class 1"]
    assert more.summary["AP"] == pytest.approx(67 / 101)  # recalls 0 .. 0.66 of 101
    assert list(more.summary)[12:] == ["AP_300", "AR_300"]
    assert more.summary["AP_300"] == more.summary["AR_300"] == pytest.approx(1)
    some = coco_figures(truth, results, max_detections=20, tools=tools)
    assert list(some.summary) == list(plain.summary)


def test_average_precision_of_a_worked_example() -> None:
    ground_truth = truth_of(
        [box(0, [0, 0, 100, 100]), box(0, [200, 0, 100, 100]), box(1, [0, 0, 100, 100])]
    )
    results = [
        box(0, [0, 0, 100, 100], score=0.9),  # right: precision 1/1 at recall 1/3
        box(0, [0, 300, 100, 100], score=0.8),  # wrong: precision 1/2
        box(0, [200, 0, 100, 62], score=0.7),  # IoU 0.62: precision 2/3 at recall 2/3, up to 0.60
    ]
    summary = coco_figures(ground_truth, results).summary
    # Of the 101 recalls 0.00 .. 0.33 are 34 with precision 1, 0.34 .. 0.66 are 33 with 2/3.
    low, high = (34 + 33 * 2 / 3) / 101, 34 / 101
    assert summary["AP50"] == pytest.approx(low)
    assert summary["AP75"] == pytest.approx(high)
    assert summary["AP"] == pytest.approx((3 * low + 7 * high) / 10)  # 0.50, 0.55 and 0.60 of 10
    assert summary["AR100"] == pytest.approx((3 * 2 / 3 + 7 * 1 / 3) / 10)
    assert summary["AR1"] == pytest.approx(1 / 3)  # one detection per image: the first


def test_perfect_detections_score_one() -> None:
    # The object of id 0 is the pitfall: plain pycocotools takes a match with it for none.
    ground_truth = truth_of([box(0, [0, 0, 40, 40], id=0)])
    results = [box(0, [0, 0, 40, 40], score=0.5)]
    annotated = [box(0, [0, 0, 40, 40], id=0, area=1600, iscrowd=0)]
    assert plain_evaluation(truth_of(annotated), results).stats[0] == 0
    summary = coco_figures(ground_truth, results).summary
    # 40 x 40 = 1600 lies between 32² and 96²: neither small nor large.
    none = {"APs", "APl", "ARs", "ARl"}
    assert {name for name, figure in summary.items() if math.isnan(figure)} == none
    assert all(summary[name] == pytest.approx(1) for name in set(SUMMARY) - none)


def test_no_detections_score_zero_and_no_objects_score_nothing() -> None:
    ground_truth, results = random_set(0)
    figures = coco_figures(ground_truth, [])
    assert set(figures.summary.values()) == {0.0}
    assert figures.per_class["class 3"]["AP"] == 0
    figures = coco_figures({**ground_truth, "annotations": []}, results)
    assert all(math.isnan(figure) for figure in figures.summary.values())
    assert all(math.isnan(row["AP"]) for row in figures.per_class.values())


def test_arguments_are_not_changed_and_nothing_is_printed(capsys: Capture) -> None:
    ground_truth, results = random_set(0)
    before = copy.deepcopy((ground_truth, results))
    coco_figures(ground_truth, results)
    assert (ground_truth, results) == before
    assert capsys.readouterr().out == ""


def test_some_images_alone_are_evaluated_as_if_there_were_no_others() -> None:
    ground_truth, results = random_set(0)
    chosen = [900_007, 900_014, 900_028]
    part = copy.deepcopy(ground_truth)
    part["images"] = [{"id": image_id} for image_id in chosen]
    part["annotations"] = [row for row in part["annotations"] if row["image_id"] in chosen]
    expected = coco_figures(part, [row for row in results if row["image_id"] in chosen])
    assert repr(coco_figures(ground_truth, results, image_ids=chosen)) == repr(expected)
    with pytest.raises(ValueError, match="asked to evaluate image 99, which"):
        coco_figures(ground_truth, results, image_ids=[900_007, 99])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (box(7, [0, 0, 1, 1], score=1.0), "results for image 7, which the ground truth"),
        (box(0, [0, 0, 1, 1], 5, score=1.0), "results for category 5, which the ground truth"),
        (box(0, [0, 0, math.inf, 1], score=1.0), "not finite"),
        (box(0, [0, 0, 1, 1], score=math.nan), "not finite"),
    ],
)
def test_impossible_results_are_refused(wrong: Row, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coco_figures(truth_of([box(0, [0, 0, 9, 9])]), [box(0, [0, 0, 9, 9], score=0.5), wrong])


@pytest.mark.parametrize("section", ["images", "categories"])
def test_ids_that_json_readers_would_round_are_refused(section: str) -> None:
    ground_truth = truth_of([])
    ground_truth[section] = [{"id": 2**53, "name": "held"}]
    coco_figures(ground_truth, [])
    ground_truth[section] = [{"id": 2**53 + 1, "name": "rounded"}]
    with pytest.raises(ValueError, match=r"id 9007199254740993 is above 2\^53"):
        coco_figures(ground_truth, [])


def test_the_table_shows_all_figures_in_80_columns() -> None:
    row = {"AP": 0.25, "AP50": math.nan, "objects": 1234567}
    few = Figures(dict.fromkeys(SUMMARY, 0.5), {"disk": row, "w" * 90: row}, {}, VOC)
    lines = format_figures(few, "runs/x").splitlines()
    assert lines[0] == "runs/x"
    assert [len(lines[start].split()) for start in range(2, 7)] == [6, 6, 6, 6, 4]
    assert lines[2].split() == ["AP", "0.500", "AP50", "0.500", "AP75", "0.500"]
    assert lines[-2].split() == ["disk", "1234567", "0.250", "-"]
    assert max(map(len, lines)) <= 80
    many = Figures({"AP": 0.5}, {f"traffic light no. {index}": row for index in range(81)}, {}, {})
    lines = format_figures(many).splitlines()
    assert len(lines) == 1 + 1 + 1 + 41  # figure, gap, heads, 81 classes in two columns
    assert max(map(len, lines)) <= 80
