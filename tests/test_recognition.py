"""The IdentityEvaluator on outputs made by hand, and in the real programs."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import eval as evaluation
import train
from data.identities import draw_identities
from detector.evaluation.recognition import (
    IdentityEvaluator,
    format_identities,
    searched_detections,
    split_vectors,
    true_objects,
)
from detector.evaluation.retrieval import identity_figures
from detector.postprocess import Detections
from tests.conftest import TINY, with_root
from tests.test_damaged import check_refusal


def outputs_and_batch() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Two images, doubled in size by the net; the second object of image 8 is a crowd, and the
    last row of each is padding."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[[0, 0, 20, 40], [40, 0, 60, 20], [0, 0, 0, 0]]] * 2).float()
    batch = {
        "boxes": boxes,
        "identities": torch.tensor([[5, 6, -1], [6, 9, -1]]),
        "valid": torch.tensor([[True, True, False]] * 2),
        "ignore": torch.tensor([[False, False, False], [False, True, False]]),
        "sizes": torch.tensor([[64, 64], [64, 32]]),
        "original_sizes": torch.tensor([[32, 32], [32, 16]]),
        "image_ids": torch.tensor([7, 8]),
    }
    detections = Detections(
        boxes / 2,
        torch.tensor([[0.9, 0.4, 0.0], [0.8, 0.0, 0.0]]),
        torch.tensor([[0, 1, -1], [1, -1, -1]]),
        torch.randn(2, 3, 4, generator=generator),
    )
    return {"detections": detections, "vectors": torch.randn(2, 3, 4, generator=generator)}, batch


def test_vectors_by_image_in_pixels_of_the_original() -> None:
    outputs, batch = outputs_and_batch()
    images = split_vectors(outputs, batch)
    assert list(images) == [7, 8]
    assert images[7].boxes.tolist() == [[0, 0, 10, 20], [20, 0, 10, 10]]
    assert images[7].identities.tolist() == [5, 6]
    assert images[8].identities.tolist() == [6]  # neither the crowd nor the padding
    np.testing.assert_array_equal(images[8].vectors, outputs["vectors"][1, :1])
    assert images[7].detected_boxes.tolist() == [[0, 0, 10, 20], [20, 0, 10, 10]]
    assert images[8].scores.tolist() == [pytest.approx(0.8)]
    truth, found = true_objects(images), searched_detections(images)
    assert truth.image_ids.tolist() == [7, 7, 8]
    assert truth.identities.tolist() == [5, 6, 6]
    assert found.image_ids.tolist() == [7, 8]  # the one of score 0.4 is not searched
    np.testing.assert_array_equal(found.vectors[1], outputs["detections"].vectors[1, 0])
    assert len(searched_detections(images, 0.3).boxes) == 3
    assert len(searched_detections(images, 1.0).boxes) == 0


def test_queries_are_what_the_figures_are_the_means_of() -> None:
    outputs, batch = outputs_and_batch()
    evaluator = IdentityEvaluator(full=True)
    images = split_vectors(outputs, batch)
    evaluator.objects, evaluator.detections = true_objects(images), searched_detections(images)
    queries = evaluator.queries([*range(6), "p17"])
    assert [(row["image_id"], row["identity"]) for row in queries] == [(7, "p17"), (8, "p17")]
    assert queries[0]["bbox"] == [20, 0, 10, 10]
    figures = identity_figures(evaluator.objects, evaluator.detections, draws=20)
    for name in ("rank1", "rank5", "mAP", "search_rank1", "search_mAP", "search_mAP_recall"):
        assert np.mean([row[name] for row in queries]) == pytest.approx(figures.values[name])
    assert "search_mAP_recall" in format_identities(figures)
    assert IdentityEvaluator().queries([]) == []


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("identities")
    draw_identities(root, train=16, val=6, size=96)
    return root


def flags(tmp_path: Path, root: Path, *words: str) -> list[str]:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    model = ["--model.embedding.size", "8", "--trainer.max_epochs", "1"]
    return ["--config", str(path), "--data.root", str(root), *model, *words]


def test_a_run_with_an_embedding(tmp_path: Path, identities: Path, capsys: Any) -> None:
    """Trained, logged, evaluated, resumed; with two losses that have a state."""
    losses = "[{name: TripletLoss, mining: all}, SphereFaceLoss, CenterLoss]"
    words = ["--model.embedding_loss", losses, "--data.identities", "[2, 2]"]
    run = train.main(flags(tmp_path, identities, *words, "--run", str(tmp_path / "run")))
    printed = capsys.readouterr().out
    assert "a guess among them costs a classifier" in printed
    (epoch,) = json.loads((run / "metrics.json").read_text())["epochs"]
    assert epoch.keys() >= {"val/embedding", "val/identity/mAP", "val/identity/rank1"}
    assert "val/identity/search_mAP" not in epoch

    summary = evaluation.main([str(run), "--draws", "20"])
    assert summary["AP"] == pytest.approx(epoch["val/AP"])
    content = json.loads((run / "eval" / "metrics.json").read_text())["identity"]
    assert content["values"]["mAP"] == pytest.approx(epoch["val/identity/mAP"])
    assert content["values"].keys() >= {"search_mAP_recall", "TPR@FAR1e-1"}
    assert content["margins"]["mAP"] > 0
    queries = json.loads((run / "eval" / "queries.json").read_text())
    assert len(queries) == content["queries"] > 0
    annotations = json.loads((identities / "annotations/instances_val.json").read_text())
    tracks = {row["image_id"]: set() for row in annotations["annotations"]}
    for row in annotations["annotations"]:
        tracks[row["image_id"]].add(row.get("track_id"))
    assert all(row["identity"] in tracks[row["image_id"]] for row in queries)  # the file's own
    assert "search_mAP_recall" in capsys.readouterr().out
    assert [*(run / "eval" / "vectors").rglob("projector_config.pbtxt")]

    train.main(["--resume", str(run), "--trainer.max_epochs", "2"])
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert state["losses.embedding.losses.1.updates"] == 8  # 4 of each epoch
    assert state["losses.embedding.losses.2.centers"].abs().sum() > 0


def test_without_the_head_identities_change_nothing(
    tiny: list[str], tmp_path: Path, identities: Path
) -> None:
    """To the last bit."""
    shutil.copytree(identities, tmp_path / "nameless")
    for path in (tmp_path / "nameless" / "annotations").iterdir():
        content = json.loads(path.read_text())
        assert sum(row.pop("track_id", None) is not None for row in content["annotations"])
        path.write_text(json.dumps(content))
    states = []
    for root in (identities, tmp_path / "nameless"):
        words = [*with_root(tiny, root), "--run", str(tmp_path / f"of_{root.name}")]
        run = train.main([*words, "--trainer.max_epochs", "1"])
        content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        assert len(content["optimizer_states"][0]["param_groups"]) == 2
        states.append(content["state_dict"])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory, identities: Path) -> Path:
    """A run of one update, in which a loss has class vectors."""
    folder = tmp_path_factory.mktemp("learned")
    words = ["--model.embedding_loss", "ArcFaceLoss", "--trainer.limit_train_batches", "1"]
    return train.main(flags(folder, identities, *words, "--run", str(folder / "run")))


def test_other_identities_cannot_go_on(learned: Path, capsys: Any) -> None:
    """The optimizer's memory of a class vector has its shape: `id` makes each object an identity of
    its own."""
    words = ["--resume", str(learned), "--data.identity", "id"]
    part = "losses.embedding.losses.0.classifier.weight is"
    check_refusal(lambda: train.main(words), learned, part, capsys)


def test_the_rate_of_what_losses_learn_can_change(learned: Path) -> None:
    """From 1, where it is the net's, to another."""
    train.main(["--resume", str(learned), "--trainer.max_epochs", "2", "--optimizer.loss_lr", "10"])
    content = torch.load(learned / "checkpoints" / "last.ckpt", weights_only=True)
    rates = [group["lr"] for group in content["optimizer_states"][0]["param_groups"]]
    assert rates == pytest.approx([rates[0], rates[0], 10 * rates[0]])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--model.embedding_loss", "TripletLoss"], "give --data.identities '[P, K]'"),
        (
            ["--model.embedding_loss", "TripletLoss", "--data.identities", "[2, 9]"],
            "2 identities in 9 images each are more than the 4 images of a batch",
        ),
        (
            ["--model.embedding_loss", "ArcFaceLoss", "--data.identity", "person"],
            "no object has a person",
        ),
        (["--model.embedding_loss", "{name: ArcFaceLoss, s: -1}"], "give a number above 0"),
        (["--model.embedding_loss", "[ArcFaceLoss, ArcFaceLoss]"], "is there twice"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    tmp_path: Path, identities: Path, words: list[str], line: str, capsys: Any
) -> None:
    with pytest.raises(SystemExit) as caught:
        train.main(flags(tmp_path, identities, *words, "--run", str(tmp_path / "run")))
    assert caught.value.code == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert line in errors[-1]
