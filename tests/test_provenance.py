"""Two origins agree only where the figures may be compared."""

import os
from pathlib import Path
from typing import Any

import pytest

from detector.config.errors import UserError
from detector.evaluation.provenance import (
    COMPARABLE,
    DATA,
    check_comparable,
    describe_origin,
    find_differences,
)


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Any]:
    """Everything that an origin is described by: two images, one object each."""
    files = {}
    for key in (1, 2):
        path = tmp_path / f"{key}.jpg"
        path.write_bytes(b"pixels" * key)
        files[key] = str(path)
    (tmp_path / "best.ckpt").write_bytes(b"weights")
    truth = {
        "images": [{"id": key, "file_name": f"{key}.jpg"} for key in (1, 2)],
        "annotations": [
            {"id": key, "image_id": key, "category_id": 1, "bbox": [0, 0, 5, 5]} for key in (1, 2)
        ],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    return {
        "weights": tmp_path / "best.ckpt",
        "truth": truth,
        "evaluated": [1, 2],
        "files": files,
        "classes": ["a", "b"],
        "settings": {"size": [64, 64]},
    }


def test_the_same_is_the_same(parts: dict[str, Any]) -> None:
    assert find_differences(describe_origin(**parts), describe_origin(**parts)) == []


def test_a_later_copy_of_the_images_may_be_compared(parts: dict[str, Any]) -> None:
    before = describe_origin(**parts)
    os.utime(parts["files"][1], ns=(1, 1))
    after = describe_origin(**parts)
    assert find_differences(before, after) == []
    assert find_differences(before, after, ["changed"]) == ["changed"]


@pytest.mark.parametrize("name", COMPARABLE)
def test_every_difference_is_named(parts: dict[str, Any], name: str) -> None:
    before = describe_origin(**parts)
    if name == "annotations":
        parts["truth"]["annotations"][0]["bbox"] = [0, 0, 5, 6]
    elif name == "evaluated":
        parts["evaluated"] = [1]
    elif name == "classes":
        parts["classes"] = ["b", "a"]
    else:
        Path(parts["files"][2]).write_bytes(b"some other pixels")
    differences = find_differences(before, describe_origin(**parts))
    assert any(text.startswith(COMPARABLE[name]) for text in differences)


def test_the_number_of_images_is_told(parts: dict[str, Any]) -> None:
    before = describe_origin(**parts)
    parts["evaluated"] = [2]
    assert "the images that were evaluated (2 and 1)" in find_differences(
        before, describe_origin(**parts)
    )


def test_other_weights_have_another_origin(parts: dict[str, Any]) -> None:
    before = describe_origin(**parts)
    parts["weights"].write_bytes(b"other")
    assert find_differences(before, describe_origin(**parts), ["weights"]) == ["weights"]


def test_other_identities_are_other_annotations(parts: dict[str, Any]) -> None:
    """Recognition is compared by them; of objects without one nothing is added."""
    objects = parts["truth"]["annotations"]
    before = describe_origin(**parts)
    objects[0]["track_id"] = 4
    with_one = describe_origin(**parts)
    assert before["annotations"] != with_one["annotations"]
    objects[0]["track_id"] = 5
    assert describe_origin(**parts)["annotations"] not in (
        before["annotations"],
        with_one["annotations"],
    )
    other_key = describe_origin(**parts, identity="person")
    assert other_key["annotations"] == before["annotations"]


def evaluation(origin: dict[str, Any] | None) -> dict[str, Any]:
    return {"data": dict.fromkeys(DATA), **({"made_from": origin} if origin else {})}


def test_the_images_that_were_evaluated_are_those_that_count(parts: dict[str, Any]) -> None:
    parts["evaluated"] = [2]
    runs = {name: evaluation(describe_origin(**parts)) for name in ("a", "b")}
    assert check_comparable(runs, parts["truth"]) == [2]
    assert check_comparable({"old": evaluation(None)}, parts["truth"]) is None


def test_annotations_that_have_changed_since_are_refused(parts: dict[str, Any]) -> None:
    runs = {"a": evaluation(describe_origin(**parts))}
    parts["truth"]["annotations"][0]["bbox"] = [0, 0, 5, 6]
    with pytest.raises(UserError, match=r"have changed since a was evaluated: python eval\.py a"):
        check_comparable(runs, parts["truth"])


def test_all_runs_are_compared_with_one_whose_origin_is_known(parts: dict[str, Any]) -> None:
    """The first was evaluated before origins were kept: both others would agree with it."""
    runs = {"old": evaluation(None), "a": evaluation(describe_origin(**parts))}
    parts["evaluated"] = [1]
    runs["b"] = evaluation(describe_origin(**parts))
    with pytest.raises(UserError, match=r"a and b were evaluated on different data"):
        check_comparable(runs, parts["truth"])
