"""Vectors that tell objects apart: which are trained, where they are read, what training shows."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detector.anchors import AnchorGenerator
from detector.backbone import Backbone
from detector.criterion import Criterion
from detector.embedding import (
    EmbeddingCriterion,
    EmbeddingHead,
    gather_vectors,
    read_vectors,
)
from detector.matching import match
from detector.module import Detector
from detector.nms import Suppression
from detector.postprocess import Postprocess
from detector.retinanet import Predictions, RetinaNet
from detector.training.callbacks import StepFigures
from losses import (
    ArcFaceLoss,
    CenterLoss,
    EmbeddingLoss,
    FocalLoss,
    IdentityCrossEntropy,
    SmoothL1Loss,
    SphereFaceLoss,
    TripletLoss,
)
from losses.overlaps import iou
from tests.test_module import SGD, SIDE, STEPS, Drawn, K, NoWaiting, trainer

C, E = 3, 8  # identities, length of a vector


def embedding(*losses: EmbeddingLoss, samples: int = 16) -> EmbeddingCriterion:
    for loss in losses:
        loss.setup(C, E)
    return EmbeddingCriterion(losses, C, samples)


def detector(*losses: EmbeddingLoss, size: int = E, scales: int = 2, **options: Any) -> Detector:
    torch.manual_seed(0)
    loss = FocalLoss()
    net = RetinaNet(
        Backbone(18, width=8, norm="group", channels=16),
        AnchorGenerator((8, 16, 32, 64, 128), scales=scales),
        loss.initial_bias(K, 0.01),
        convs=1,
        embedding_head=EmbeddingHead(16, 1, size) if size else None,
    )
    extra = embedding(*losses, **options) if losses else None
    criterion = Criterion(loss, SmoothL1Loss(), K, extra)
    postprocess = Postprocess(loss.scores, Suppression(), score_threshold=0.0, top_k=50)
    return Detector(net, criterion, postprocess, SGD, STEPS, 2)


class Tracks(Drawn):
    """The squares of `Drawn`, whose identity is the index modulo C + 1, and C means none."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        identity = -1 if index % (C + 1) == C else index % (C + 1)
        return super().__getitem__(index) | {"identities": torch.tensor([identity, -1, -1, -1])}


def loader(count: int = 8, batch_size: int = 4) -> DataLoader[Any]:
    return DataLoader(Tracks(count), batch_size=batch_size)


BATCH = next(iter(loader()))


def random_predictions(images: int = 2, per_cell: int = 3) -> Predictions:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(10 * per_cell, 2, generator=generator) * 50
    anchors = torch.cat(
        [corner, corner + 5 + 20 * torch.rand(corner.shape, generator=generator)], 1
    )
    vectors = torch.randn(images, 10, E, generator=generator)
    none = torch.zeros(images, len(anchors), 1)
    return Predictions(none, none, anchors, [len(anchors)], vectors)


def test_all_anchors_of_a_cell_have_its_vector() -> None:
    predictions = random_predictions(per_cell=3)
    index = torch.tensor([[0, 2, 3, 29], [5, 6, 7, 8]])
    vectors = gather_vectors(predictions, index)
    assert predictions.embeddings is not None
    for n, row in enumerate(index.tolist()):
        for s, anchor in enumerate(row):
            assert torch.equal(vectors[n, s], predictions.embeddings[n, anchor // 3])


def test_a_box_has_the_vector_of_the_anchor_that_overlaps_it_most() -> None:
    predictions = random_predictions(per_cell=2)
    generator = torch.Generator().manual_seed(1)
    boxes = torch.rand(2, 7, 2, generator=generator) * 40
    boxes = torch.cat([boxes, boxes + 25], -1)
    vectors = read_vectors(predictions, boxes)
    assert predictions.embeddings is not None
    for n in range(2):
        for g in range(7):
            overlaps = [iou(boxes[n, g], anchor).item() for anchor in predictions.anchors]
            best = overlaps.index(max(overlaps))
            assert torch.equal(vectors[n, g], predictions.embeddings[n, best // 2])


def test_only_foreground_of_known_identities_is_trained() -> None:
    predictions = random_predictions()
    identities = torch.full((2, 30), -1)
    identities[0, [3, 4, 20]] = torch.tensor([0, 2, 1])
    identities[1, 7] = C  # of validation only
    vectors, chosen = embedding(ArcFaceLoss()).sample(predictions, identities)
    assert vectors.shape == (2, 16, E)
    assert sorted(chosen[0].tolist()) == [-1] * 13 + [0, 1, 2]
    assert chosen[1].tolist() == [-1] * 16
    assert predictions.embeddings is not None
    for vector, identity in zip(vectors[0], chosen[0].tolist(), strict=True):
        if identity >= 0:
            anchor = identities[0].tolist().index(identity)
            assert torch.equal(vector, predictions.embeddings[0, anchor // 3])


def test_of_too_many_a_sample_is_spread_evenly() -> None:
    count = 3000
    predictions = random_predictions(1)._replace(
        anchors=torch.rand(count, 4), embeddings=torch.rand(1, count, E)
    )
    identities = torch.zeros(1, count, dtype=torch.int64)
    identities[0, 1000:1900], identities[0, 1900:2000] = 1, 2
    _, chosen = embedding(ArcFaceLoss(), samples=300).sample(predictions, identities)
    shares = torch.bincount(chosen[0], minlength=3)
    torch.testing.assert_close(shares, torch.tensor([200, 90, 10]), atol=2, rtol=0)


def test_the_identity_of_an_anchor_is_that_of_its_object() -> None:
    """The vectors whose gradient is not zero are those of foreground anchors with an identity."""
    model = detector(IdentityCrossEntropy(), samples=10_000)
    predictions = model.net(BATCH["images"], BATCH["sizes"])
    assert predictions.embeddings is not None
    predictions.embeddings.retain_grad()
    losses, targets = model.criterion(predictions, BATCH)
    losses["embedding"].backward()
    labels, _, rows = match(predictions.anchors, BATCH, K)
    foreground = (labels >= 0) & (labels < K)
    assert (rows[foreground] == 0).all()  # the only object of each image
    cells = foreground.view(4, -1, model.net.anchors.per_cell).any(-1) & (
        BATCH["identities"][:, :1] >= 0
    )
    assert predictions.embeddings.grad is not None
    assert torch.equal(predictions.embeddings.grad.abs().sum(-1) > 0, cells)
    assert targets.figures["IdentityCrossEntropy"] == losses["embedding"]


@pytest.mark.parametrize("remove", ["all -1", "no key"])
def test_without_any_identity_the_loss_is_zero_and_attached(remove: str) -> None:
    model = detector(ArcFaceLoss(), TripletLoss(), CenterLoss())
    batch = {**BATCH, "identities": torch.full_like(BATCH["identities"], -1)}
    if remove == "no key":
        del batch["identities"]
    losses, _ = model.criterion(model.net(batch["images"], batch["sizes"]), batch)
    assert losses["embedding"] == 0
    losses["embedding"].backward()
    head = model.net.embedding_head
    assert head is not None
    for parameter in (*head.parameters(), *model.criterion.embedding.parameters()):  # type: ignore[union-attr]
        assert parameter.grad is not None
        assert (parameter.grad == 0).all()


def test_several_losses_are_weighted_and_shown() -> None:
    model = detector(ArcFaceLoss(weight=2.0), CenterLoss(weight=0.5), TripletLoss(weight=0.0))
    losses, targets = model.criterion(model.net(BATCH["images"], BATCH["sizes"]), BATCH)
    figures = targets.figures
    expected = 2 * figures["ArcFaceLoss"] + 0.5 * figures["CenterLoss"]
    torch.testing.assert_close(losses["embedding"].detach(), expected)
    assert figures.keys() >= {"cosine_same", "cosine_other", "active_triplets", "chance_level"}
    assert figures["chance_level"].item() == pytest.approx(1.0986, abs=1e-4)  # ln 3
    assert not any(figure.requires_grad for figure in figures.values())


def test_failed_trainings_are_named() -> None:
    losses = embedding(ArcFaceLoss(), TripletLoss(margin=0.2), CenterLoss())
    figures = {
        "ArcFaceLoss": 9.0,
        "ArcFaceLoss_cosine": -0.9,
        "TripletLoss": 0.2,
        "CenterLoss": 1.0,
    }
    lines = losses.explain(figures)
    assert [line.split(" ")[0] for line in lines] == ["ArcFaceLoss:", "TripletLoss"]
    assert losses.explain({**figures, "ArcFaceLoss_cosine": 0.1, "TripletLoss": 0.15}) == []


def test_mean_cosines_are_of_different_images() -> None:
    vectors = torch.zeros(2, 10, E)
    vectors[0, 0, 0] = vectors[0, 1, 0] = vectors[1, 0, 0] = 2.0
    vectors[1, 1, 1] = 1.0
    predictions = random_predictions(per_cell=1)._replace(embeddings=vectors)
    identities = torch.full((2, 10), -1)
    identities[0, :2] = 0  # twice the same object
    identities[1, 0], identities[1, 1] = 0, 1
    _, figures = embedding(ArcFaceLoss())(predictions, identities)
    assert figures["cosine_same"] == 1  # (0, 0) with (1, 0), (0, 1) with (1, 0)
    assert figures["cosine_other"] == 0  # (0, 0) and (0, 1) with (1, 1); (1, 0) is in its image
    _, figures = embedding(ArcFaceLoss())(predictions, torch.full((2, 10), -1))
    assert figures["cosine_same"].isnan()


def test_detections_have_the_vector_of_their_anchor() -> None:
    model = detector().eval()
    outputs = model.postprocess
    with torch.no_grad():
        predictions = model.net(BATCH["images"], BATCH["sizes"])
    candidates = outputs.choose(predictions, BATCH["sizes"])
    detections = outputs(predictions, BATCH["sizes"], BATCH["original_sizes"])
    assert candidates.vectors is not None
    assert detections.vectors is not None
    assert predictions.embeddings is not None
    known = predictions.embeddings.flatten(0, 1)
    for n in range(4):
        for box, vector in zip(detections.boxes[n, :5], detections.vectors[n, :5], strict=True):
            (row,) = (candidates.boxes[n] == box).all(-1).nonzero()[:1, 0]  # of the same size
            assert any(torch.equal(vector, other) for other in candidates.vectors[n])
            assert torch.equal(vector, candidates.vectors[n, row])
            assert (known == vector).all(-1).any()


def test_without_the_head_nothing_is_different() -> None:
    """The same names and weights as before there was one, and no losses, figures or vectors."""
    plain, headed = detector(size=0), detector(ArcFaceLoss())
    weights = plain.net.state_dict()
    more = headed.net.state_dict()
    assert {name for name in more if name not in weights} == {
        name for name in more if name.startswith("embedding_head.")
    }
    assert all(torch.equal(more[name], value) for name, value in weights.items())
    assert not [name for name in plain.state_dict() if "embedding" in name]
    predictions = plain.net(BATCH["images"], BATCH["sizes"])
    assert predictions.embeddings is None
    losses, targets = plain.criterion(predictions, BATCH)
    assert losses.keys() == {"class", "box"}
    assert targets.figures == {}
    detections = plain.postprocess(predictions, BATCH["sizes"], BATCH["original_sizes"])
    assert detections.vectors is None


def test_initial_vectors_have_a_direction() -> None:
    """The other heads begin with outputs near 0, whose directions would change at random and whose
    gradients, through the normalization, would be enormous."""
    model = detector()
    vectors = model.net(BATCH["images"], BATCH["sizes"]).embeddings
    assert vectors is not None
    assert 0.05 < vectors.norm(dim=-1).median() < 20


def test_numbers_drawn_after_the_head_are_the_same() -> None:
    draws = []
    for size in (0, E):
        detector(size=size)
        draws.append(torch.rand(3))
    assert torch.equal(*draws)


def test_a_step_never_waits_for_the_device() -> None:
    model = detector(ArcFaceLoss(), SphereFaceLoss(), TripletLoss(mining="all"), CenterLoss())
    with NoWaiting():
        losses, _ = model.criterion(model.net(BATCH["images"], BATCH["sizes"]), BATCH)
        torch.stack(list(losses.values())).sum().backward()


def test_a_step_is_one_graph() -> None:
    criterion = embedding(ArcFaceLoss(), TripletLoss(), CenterLoss()).eval()
    predictions = random_predictions()
    identities = torch.arange(60).view(2, 30) % (C + 1) - 1
    expected, _ = criterion(predictions, identities)
    compiled = torch.compile(criterion, backend="eager", fullgraph=True)
    total, figures = compiled(predictions, identities)
    torch.testing.assert_close(total, expected)
    assert figures["active_triplets"] > 0


def test_annealing_counts_updates_of_the_trainer(tmp_path: Any) -> None:
    """Neither the batches whose gradients are added up, nor those of validation."""
    model = detector(SphereFaceLoss())
    loop = trainer(tmp_path, max_epochs=3, accumulate_grad_batches=2)
    loop.fit(model, loader(8, 2), loader(8, 2))
    (loss,) = model.criterion.embedding or ()
    assert loss.updates == 6  # 4 batches an epoch, in pairs


def test_centers_and_annealing_go_on_after_a_resume(tmp_path: Any) -> None:
    def train(epochs: int, path: Any = None) -> Detector:
        model = detector(SphereFaceLoss(), CenterLoss())
        loop = trainer(tmp_path, max_epochs=epochs, limit_val_batches=0)
        loop.fit(model, loader(), loader(), ckpt_path=path, weights_only=True)
        loop.save_checkpoint(tmp_path / "last.ckpt")
        return model

    straight = train(2)
    train(1)
    resumed = train(2, tmp_path / "last.ckpt")
    for name, value in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert resumed.state_dict()["losses.embedding.losses.0.updates"] == 4
    assert resumed.state_dict()["losses.embedding.losses.1.centers"].abs().sum() > 0


def test_a_collapse_is_named(tmp_path: Any, capsys: Any) -> None:
    model = detector(TripletLoss())
    assert model.net.embedding_head is not None
    torch.nn.init.zeros_(model.net.embedding_head.output.weight)  # all vectors are the bias
    torch.nn.init.ones_(model.net.embedding_head.output.bias)  # type: ignore[arg-type]
    loop = trainer(tmp_path, limit_val_batches=0, limit_train_batches=1, callbacks=[StepFigures()])
    images = DataLoader(Tracks(8), batch_size=8)  # two of each identity
    loop.fit(model, images, images)
    assert "TripletLoss is 0.2, its margin: all embeddings are equal" in capsys.readouterr().out


def test_validation_returns_the_vectors_of_true_boxes() -> None:
    model = detector(ArcFaceLoss()).eval()
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    with torch.no_grad():
        vectors = model.validation_step(BATCH, 0)["vectors"]
        predictions = model.net(BATCH["images"], BATCH["sizes"])
    assert vectors.shape == (*BATCH["labels"].shape, E)
    assert torch.equal(vectors, read_vectors(predictions, BATCH["boxes"]))
    assert BATCH["images"].shape[-1] == SIDE
