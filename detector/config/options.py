"""Every option of a configuration: one flat table of its type, default and help.

The single source of defaults, of the checks and of `--help`. Nothing heavy is imported here.
"""

from collections.abc import Callable
from typing import Any, Literal

from detector.config.types import (
    Count,
    Fraction,
    LossList,
    LossName,
    Natural,
    NonNegative,
    OpenUnit,
    Option,
    Positive,
    Precision,
    Seed,
    Splits,
    Threshold,
    Width,
    ZeroToFive,
)

OPTIONS = {
    "run": Option(str | None, None, "name under runs/, or a path; null: config's name and date"),
    "seed": Option(Seed, 0, "of the initial weights, the data's order and augmentation"),
    "resume": Option(str | None, None, "a run to go on with; its config.yaml is the start"),
    "data.format": Option(
        Literal["auto", "coco", "voc", "yolo", "shapes", "identities"],
        "auto",
        "the last two draw what is missing",
    ),
    "data.root": Option(str, "datasets/shapes", "folder of the data set"),
    "data.train": Option(Splits, "train", "split, or list of splits"),
    "data.val": Option(Splits, "val", "split, or list of splits"),
    "data.annotations": Option(str | None, None, "template with {split}; null: the format's own"),
    "data.images": Option(str | None, None, "template with {split}; null: the format's own"),
    "data.classes": Option(list[str] | None, None, "null: as the annotations have them"),
    "data.single_class": Option(bool, False, "all objects are of one class"),
    "data.size": Option(tuple[Count, Count], [640, 640], "height, width; letterboxed"),
    "data.short": Option(Count | list[Count] | None, None, "short side (or several); beats size"),
    "data.long": Option(Count, 1333, "long side at most, together with data.short"),
    "data.batch_size": Option(Count, 16, "images per process"),
    "data.workers": Option(Natural, 2, "loader processes per process"),
    "data.cache": Option(bool, False, "keep decoded images in memory"),
    "data.reduce": Option(bool, True, "decode JPEGs no larger than the size asked for needs"),
    "data.hflip": Option(Fraction, 0.5, "chance of a left-right flip"),
    "data.vflip": Option(Fraction, 0.0, "chance of an up-down flip"),
    "data.color": Option(Fraction, 0.0, "strength of brightness, contrast and color changes"),
    "data.zoom": Option(Fraction, 0.0, "strength of random scaling"),
    "data.label_noise": Option(Fraction, 0.0, "share of training objects annotated wrongly"),
    "data.noise_kind": Option(
        Literal["mixed", "class", "missing", "shifted"], "mixed", "what is wrong with them"
    ),
    "data.class_weights": Option(
        Fraction, 0.0, "classes weigh by 1 / their objects, to this power; 0: all alike"
    ),
    "data.oversample": Option(
        Fraction, 0.0, "images of classes in less than this share of them come more often; 0: off"
    ),
    "data.identity": Option(str, "track_id", "key of annotations that tells objects apart"),
    "data.identities": Option(
        tuple[Count, Count] | None, None, "[P, K]: batches show P of them, K times or more"
    ),
    "data.holdout": Option(Threshold, 0.0, "share of train that is validated on instead of val"),
    "model.depth": Option(Literal[10, 18, 34, 50, 101, 152], 50, "layers of the ResNet"),
    "model.width": Option(Width, 64, "channels of the ResNet's stem"),
    "model.norm": Option(Literal["frozen", "batch", "group"], "frozen", "in the ResNet"),
    "model.freeze": Option(ZeroToFive, 0, "how many of stem, layer1 .. layer4 stay as loaded"),
    "model.weights": Option(str | None, None, "imagenet, a file, or a run"),
    "model.channels": Option(Count, 256, "of the pyramid and the heads"),
    "model.convs": Option(Natural, 4, "hidden convolutions of each head"),
    "model.head_norm": Option(Literal["none", "group"], "none", "in the heads"),
    "model.p6": Option(Literal["p5", "c5"], "p5", "what level P6 is made from"),
    "model.prior": Option(OpenUnit, 0.01, "score of every class at the start"),
    "model.anchors.sizes": Option(
        tuple[Positive, Positive, Positive, Positive, Positive],
        [32.0, 64.0, 128.0, 256.0, 512.0],
        "pixels, P3 .. P7",
    ),
    "model.anchors.ratios": Option(list[Positive], [0.5, 1.0, 2.0], "height / width"),
    "model.anchors.scales": Option(Count, 3, "sizes per octave"),
    "model.anchors.rounding": Option(Literal["exact", "torchvision"], "exact", "of the strides"),
    "model.match.metric": Option(Literal["iou", "giou", "diou", "ciou"], "iou", "overlap"),
    "model.match.foreground": Option(
        Fraction | None, None, "overlap from which an anchor is foreground; null: the metric's own"
    ),
    "model.match.background": Option(
        Fraction | None, None, "overlap below which it is background; null: the metric's own"
    ),
    "model.match.force": Option(
        Literal["object", "torchvision", "none"], "object", "objects without an anchor: see match()"
    ),
    "model.class_loss": Option(LossName, "FocalLoss", "a loss below, or yours as module.Class"),
    "model.box_loss": Option(LossName, "SmoothL1Loss", "arguments: --model.box_loss.weight 2"),
    "model.embedding.size": Option(Natural, 0, "of vectors that tell objects apart; 0: none"),
    "model.embedding.samples": Option(Count, 64, "vectors of an image that losses see, at most"),
    "model.embedding_loss": Option(
        LossList | None, None, "one, or '[ArcFaceLoss, {name: CenterLoss, weight: 0.003}]'"
    ),
    "postprocess.nms": Option(Literal["hard", "diou", "soft"], "hard", "suppression"),
    "postprocess.iou_threshold": Option(Fraction, 0.5, "overlap that suppresses"),
    "postprocess.beta": Option(Positive, 1.0, "of diou: exponent of the distance"),
    "postprocess.sigma": Option(Positive | None, None, "of soft: Gaussian; null: linear"),
    "postprocess.class_agnostic": Option(bool, False, "also across classes"),
    "postprocess.score_threshold": Option(Threshold, 0.05, "lower scores are dropped"),
    "postprocess.candidates": Option(Count, 1000, "best scores kept per level"),
    "postprocess.max_detections": Option(Count, 100, "per image"),
    "optimizer.name": Option(Literal["sgd", "adamw"], "sgd", ""),
    "optimizer.lr": Option(
        Positive, 0.01, "for reference_batch images per update; scaled linearly"
    ),
    "optimizer.momentum": Option(Threshold, 0.9, "beta1 of adamw"),
    "optimizer.weight_decay": Option(
        NonNegative, 0.0001, "not on biases, normalization and losses"
    ),
    "optimizer.loss_lr": Option(
        Positive, 1.0, "factor of lr, for what losses learn (class vectors)"
    ),
    "optimizer.reference_batch": Option(Natural, 16, "images; 0: lr is taken as it is"),
    "schedule.name": Option(Literal["multistep", "cosine"], "multistep", ""),
    "schedule.warmup": Option(Natural, 500, "updates, linear"),
    "schedule.milestones": Option(list[Fraction], [0.667, 0.917], "shares of all updates"),
    "schedule.gamma": Option(Positive, 0.1, "factor at a milestone"),
    "ema.decay": Option(Threshold, 0.0, "of the averaged weights; 0: off"),
    "early_stopping.patience": Option(
        Natural, 0, "validations in a row without a higher AP that end the run; 0: off"
    ),
    "speed.channels_last": Option(bool, True, "channels of a pixel together in memory"),
    "speed.compile": Option(
        Literal["none", "losses", "all"], "none", "losses: matching and losses; all: the net too"
    ),
    "trainer.max_epochs": Option(Count | Literal[-1] | None, 12, "-1: until trainer.max_steps"),
    "trainer.precision": Option(Precision, "32-true", ""),
    "trainer.gradient_clip_val": Option(
        NonNegative | None, 10.0, "norm of all gradients; null: off"
    ),
    "trainer.log_every_n_steps": Option(Count, 50, "and so any other argument of pl.Trainer"),
}
Rule = tuple[str, Callable[[dict[str, Any]], bool], str]  # option, what must hold, what to say
RULES: tuple[Rule, ...] = (
    (
        "model.match.foreground",
        lambda v: (
            None in (high := v["model.match.foreground"], low := v["model.match.background"])
            or high >= low
        ),
        "must not be below model.match.background",
    ),
    (
        "model.weights",
        lambda v: v["model.weights"] != "imagenet" or v["model.width"] == 64,
        "the imagenet weights need model.width 64",
    ),
    (
        "model.weights",
        lambda v: v["model.weights"] != "imagenet" or v["model.depth"] != 10,
        "there are no imagenet weights of model.depth 10",
    ),
    (
        "data.size",
        lambda v: v["model.norm"] != "batch" or v["data.short"] or max(v["data.size"]) > 32,
        "model.norm batch needs images of more than 32 pixels: of smaller ones the last layer has "
        "one value per channel, which has no variance; give a larger size, or model.norm group",
    ),
    (
        "trainer.max_epochs",
        lambda v: v["trainer.max_epochs"] not in (None, -1) or v.get("trainer.max_steps", -1) > 0,
        "a training needs an end that the schedule can count on: give a number, or "
        "trainer.max_steps",
    ),
    *(
        (
            f"trainer.{key}",
            lambda v, key=f"trainer.{key}": (
                not v.get(key) or v.get("trainer.max_time") or v["early_stopping.patience"]
            ),
            "it would have no effect: only trainer.max_time and early_stopping.patience end a "
            "training earlier than asked for",
        )
        for key in ("min_epochs", "min_steps")
    ),
    (
        "trainer.gradient_clip_algorithm",
        lambda v: not v.get("trainer.gradient_clip_algorithm") or v["trainer.gradient_clip_val"],
        "it would have no effect: trainer.gradient_clip_val is off",
    ),
    (
        "trainer.sync_batchnorm",
        lambda v: not v.get("trainer.sync_batchnorm") or v["model.norm"] == "batch",
        "it would have no effect: only model.norm batch has statistics to share",
    ),
    (
        "data.class_weights",
        lambda v: not v["data.class_weights"] or "model.class_loss.class_weights" in v,
        "needs a model.class_loss with class_weights (GHMC has none: it weighs examples by how "
        "many are like them, of all classes)",
    ),
    (
        "data.class_weights",
        lambda v: not v["data.class_weights"] or not v.get("model.class_loss.class_weights"),
        "model.class_loss.class_weights are given as well: leave out one of them",
    ),
    (
        "model.embedding_loss",
        lambda v: not v["model.embedding.size"] or v["model.embedding_loss"] is not None,
        "model.embedding.size needs a loss, such as --model.embedding_loss ArcFaceLoss (or [])",
    ),
    (
        "model.embedding.size",
        lambda v: v["model.embedding.size"] > 0 or not v["model.embedding_loss"],
        "model.embedding_loss needs the size of the vectors, such as --model.embedding.size 128",
    ),
    ("data.short", lambda v: v["data.short"] != [], "must not be an empty list"),
    ("data.classes", lambda v: v["data.classes"] != [], "must not be an empty list"),
    ("model.anchors.ratios", lambda v: v["model.anchors.ratios"] != [], "must not be empty"),
)
