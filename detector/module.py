"""Detector: the LightningModule that composes net, criterion and postprocess, and does no more.

Callbacks do the rest: `detector.evaluation.evaluator` scores and draws what was detected,
`detector.training.callbacks` reads the figures of a step.
"""

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from detector.criterion import Criterion
from detector.embedding import read_vectors
from detector.guard import Guard
from detector.optimization import LearningRate, Settings, apply_settings, make_optimizer
from detector.postprocess import Detections, Postprocess, suppress
from detector.retinanet import RetinaNet

Batch = dict[str, Tensor]


class Detector(pl.LightningModule):
    """Training, validation and prediction of a RetinaNet.

    Weights of the net are `net.*` in checkpoints, whatever the losses learn or count is `losses.*`.
    A step never waits for the device: its figures stay there, in `step_figures` and `guard`.

    Args:
        net, criterion, postprocess: the three parts.
        optimizer: name ("sgd", "adamw"), lr, momentum, weight_decay, reference_batch.
        schedule: name ("multistep", "cosine"), warmup, milestones, gamma.
        batch_size: images of a process and step, for the scaling of the learning rate.
    """

    losses: Criterion

    def __init__(
        self,
        net: RetinaNet,
        criterion: Criterion,
        postprocess: Postprocess,
        optimizer: Settings,
        schedule: Settings,
        batch_size: int,
    ) -> None:
        super().__init__()
        self.net, self.losses, self.postprocess = net, criterion, postprocess
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size
        self.guard = Guard()

    @property
    def criterion(self) -> Criterion:
        return self.losses

    def forward(self, batch: Batch) -> Detections:
        """Detections of a batch in pixels of the original images."""
        predictions = self.net(batch["images"], batch["sizes"])
        return self.postprocess(predictions, batch["sizes"], batch["original_sizes"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.guard.keep_statistics(self.net)
        predictions = self.net(batch["images"], batch["sizes"])
        losses, targets = self.criterion(predictions, batch)
        total = torch.stack(list(losses.values())).sum()
        self.step_figures = {
            "train/loss": total.detach(),
            **{f"train/{name}": value.detach() for name, value in losses.items()},
            "train/num_foreground": targets.num_foreground,
            **{f"train/{name}": value for name, value in targets.figures.items()},
        }
        self.image_ids = batch["image_ids"]
        # an infinite loss can have finite gradients; NaN reaches every rank through their mean
        return total * torch.where(total.detach().isfinite(), 1.0, math.nan)

    def on_after_backward(self) -> None:
        self.guard.check_loss(self.step_figures["train/loss"], self.image_ids)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: Any = None, gradient_clip_algorithm: Any = None
    ) -> None:
        parameters = [p for p in self.parameters() if p.grad is not None]
        by_value = gradient_clip_algorithm == "value"
        self.guard.clip(parameters, optimizer, gradient_clip_val, by_value)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.criterion.embedding is not None:
            self.criterion.embedding.advance()

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Logs the losses; returns "predictions", "candidates" and "detections" of the batch, for
        callbacks, and with an embedding head the "vectors" (N, G, E) of the true boxes."""
        predictions = self.net(batch["images"], batch["sizes"])
        losses, _ = self.criterion(predictions, batch)
        count = len(batch["image_ids"])
        for name, value in losses.items():
            self.log(f"val/{name}", value, on_epoch=True, batch_size=count, sync_dist=True)
        sizes, suppression = batch["sizes"], self.postprocess.suppression
        candidates = self.postprocess.choose(predictions, sizes)
        detections = suppress(candidates, suppression, sizes, batch["original_sizes"])
        outputs = {"predictions": predictions, "candidates": candidates, "detections": detections}
        if predictions.embeddings is not None:
            outputs["vectors"] = read_vectors(predictions, batch["boxes"])
        return outputs

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # in 16-mixed only gradients for an optimizer that is not fused are unscaled before clipping
        fused = self.trainer.precision != "16-mixed"
        return make_optimizer(self, self.optimizer, self.optimizer["lr"], fused)

    @property
    def learning_rate(self) -> LearningRate:
        """Of the run that is going on; not known before its first step, since to count the updates
        Lightning makes the first iterator, and a resume must know its epoch by then."""
        trainer, updates = self.trainer, int(self.trainer.estimated_stepping_batches)
        images = self.batch_size * trainer.world_size * trainer.accumulate_grad_batches
        return LearningRate(self.optimizer, self.schedule, images, updates)

    def on_train_start(self) -> None:
        """After a resume the configuration beats what the checkpoint remembers."""
        apply_settings(self.trainer.optimizers[0], self.optimizer)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        trainer, rate = self.trainer, self.learning_rate
        update = trainer.global_step
        if rate.updates != trainer.max_steps:
            # so many epochs make the run: those before a resume count as epochs of now, though
            # with other images per update they had more updates, or fewer
            update = trainer.current_epoch * rate.updates // (trainer.max_epochs or 1)
            update += batch_idx // trainer.accumulate_grad_batches
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = rate.at(update) * group.get("lr_factor", 1.0)
