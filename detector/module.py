"""Detector: the LightningModule that composes net, criterion and postprocess, and nothing else."""

import math
from collections.abc import Callable
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from detector.criterion import Criterion
from detector.evaluation.coco import Figures, coco_figures
from detector.evaluation.drawing import contact_sheet, truth_and_detections
from detector.evaluation.results import by_image, gather, to_results
from detector.evaluation.suppression import Saved, to_save
from detector.guard import Guard
from detector.optimization import make_optimizer, rate_factor
from detector.postprocess import Detections, Postprocess
from detector.retinanet import Predictions, RetinaNet

Batch = dict[str, Tensor]
PICTURES = 8


class Detector(pl.LightningModule):
    """Training, validation and prediction of a RetinaNet.

    Weights of the net are `net.*` in checkpoints, whatever the losses learn or count is `losses.*`.
    A step never waits for the device: what there is to see of it (loss, gradient norm, foreground
    anchors, non-finite updates) is read every `log_every_n_steps`.

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
        optimizer: dict[str, Any],
        schedule: dict[str, Any],
        batch_size: int,
    ) -> None:
        super().__init__()
        self.net, self.losses, self.postprocess = net, criterion, postprocess
        self.optimizer, self.schedule, self.batch_size = optimizer, schedule, batch_size
        self.found: dict[int, list[dict[str, Any]]] = {}
        self.results: list[dict[str, Any]] = []  # of all images, on rank 0, after validation
        self.evaluated: list[int] = []  # ids of these images
        self.figures: Figures | None = None  # the same; all twelve unless it was during fit
        self.saved: dict[int, Saved] | None = (
            None  # candidates of all images, where they are wanted
        )
        self.pictures: list[Any] = []
        self.recent: dict[str, float] = {}  # what was read at the last logging interval
        self.guard = Guard()
        self.observer: Callable[[Predictions, Batch], None] | None = None  # sees training steps
        self.last_read, self.started = 0, False

    def forward(self, batch: Batch) -> Detections:
        """Detections of a batch in pixels of the original images."""
        predictions = self.net(batch["images"], batch["sizes"])
        return self.postprocess(predictions, batch["sizes"], batch["original_sizes"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        predictions = self.net(batch["images"], batch["sizes"])
        losses, num_foreground = self.losses(predictions, batch)
        if self.observer is not None:
            self.observer(predictions, batch)
        total = torch.stack(list(losses.values())).sum()
        self.step = {
            "train/loss": total.detach(),
            **{f"train/{name}": value.detach() for name, value in losses.items()},
            "train/num_foreground": num_foreground,
        }
        self.image_ids = batch["image_ids"]
        # An infinite loss can have finite gradients. NaN reaches every rank through the mean of
        # gradients.
        return total * torch.where(total.detach().isfinite(), 1.0, math.nan)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        parameters = [p for p in self.parameters() if p.grad is not None]
        self.guard.clip(parameters, optimizer, gradient_clip_val, self.image_ids)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        step, interval = self.trainer.global_step, self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step % interval == 0 and step != self.last_read:
            self.last_read = step
            self.read_step(step)

    def read_step(self, step: int) -> None:
        """The one wait for the device: the mean over ranks of this step's figures, to the logger
        and the bar."""
        names = [*self.step, "train/gradient_norm", "bad", "row"]
        values = torch.stack([*self.step.values(), self.guard.norm, self.guard.bad, self.guard.row])
        if self.trainer.world_size > 1:
            dist.all_reduce(values)
            values = values / self.trainer.world_size
        figures = dict(zip(names, values.tolist(), strict=True))
        bad, row = figures.pop("bad"), figures.pop("row")
        self.recent = figures | {"lr": self.optimizers().param_groups[0]["lr"]}  # type: ignore[union-attr]
        if self.logger:
            self.logger.log_metrics({**figures, "train/lr": self.recent["lr"]}, step)
        if bad:
            line = self.guard.report(int(bad), int(row), self.trainer.world_size)
            if self.trainer.is_global_zero:
                print(line)

    def on_validation_epoch_start(self) -> None:
        self.found, self.pictures = {}, []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        predictions = self.net(batch["images"], batch["sizes"])
        losses, _ = self.losses(predictions, batch)
        count = len(batch["image_ids"])
        for name, value in losses.items():
            self.log(f"val/{name}", value, on_epoch=True, batch_size=count, sync_dist=True)
        sizes = batch["sizes"], batch["original_sizes"]
        candidates = self.postprocess.candidates(predictions, sizes[0])
        if self.saved is not None:
            self.saved |= to_save(candidates, *sizes, batch["image_ids"])
        detections = self.postprocess.suppress(candidates, *sizes)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        rows = to_results(detections, batch["image_ids"], data.category_ids)
        self.found |= by_image(rows, batch["image_ids"].tolist())
        if self.logger and self.trainer.is_global_zero and len(self.pictures) < PICTURES:
            self.pictures += truth_and_detections(batch, detections, data.classes)
            self.pictures = self.pictures[:PICTURES]

    def on_validation_epoch_end(self) -> None:
        """Average precision of the images of all ranks, each once; computed on rank 0, known to
        all."""
        if self.trainer.sanity_checking:
            return
        summary: dict[str, float] = {}
        full = self.trainer.state.fn != TrainerFn.FITTING
        found = gather(self.found)
        if self.saved is not None:
            self.saved = gather(self.saved) or {}
        if found is not None:
            truth = self.trainer.datamodule.ground_truth()  # type: ignore[attr-defined]
            self.evaluated = list(found)
            self.results = [row for image in found.values() for row in image]
            self.figures = coco_figures(truth, self.results, full=full, image_ids=found)
            summary = self.figures.summary
        summary = self.trainer.strategy.broadcast(summary)
        for name, value in summary.items():
            self.log(f"val/{name}", value)
        if self.pictures and self.logger:
            sheet = contact_sheet(self.pictures, columns=2)
            self.logger.experiment.add_image(  # type: ignore[attr-defined]
                "val/truth_and_detections", sheet, self.trainer.global_step, dataformats="HWC"
            )
        self.found, self.pictures = {}, []

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> Detections:
        return self(batch)

    def compile_parts(self, parts: Literal["none", "losses", "all"]) -> None:
        """Let torch write kernels for matching and losses, or for the net as well. Names of weights
        stay. Every shape is compiled once, which takes its time: those of images are few (one, or
        two for each `data.short`), and objects come in groups of 16, 32, 64, ..."""
        torch._dynamo.config.recompile_limit = 64  # with more shapes it would silently not compile
        if parts != "none":
            self.losses.compile(dynamic=False)
        if parts == "all":
            self.net.compile(dynamic=False)

    def configure_optimizers(self) -> Any:
        # 16-mixed scales the gradients, and only an optimizer that is not fused is unscaled before
        # clipping
        fused = self.trainer.precision != "16-mixed"
        optimizer = make_optimizer(self, self.optimizer, self.learning_rate, fused)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.learning_rate_factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    @property
    def images_per_update(self) -> int:
        return self.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches

    @property
    def learning_rate(self) -> float:
        """`optimizer.lr`, scaled linearly from `reference_batch` images per update to those of this
        run."""
        reference = self.optimizer["reference_batch"]
        return self.optimizer["lr"] * (self.images_per_update / reference if reference else 1.0)

    @property
    def warmup(self) -> int:
        """Updates of warm-up: as asked for, but at most a fifth of a short run."""
        return min(self.schedule["warmup"], int(self.trainer.estimated_stepping_batches) // 5)

    def learning_rate_factor(self, update: int) -> float:
        if not self.started:
            # To count the updates Lightning makes the first iterator, before a resume knows its
            # epoch; `on_train_start` sets the rate.
            return 1.0
        total = max(1, int(self.trainer.estimated_stepping_batches))
        return rate_factor(update, total, self.schedule | {"warmup": self.warmup})

    def on_train_start(self) -> None:
        """After a resume: what the configuration says of rates and decay beats what the checkpoint
        remembers."""
        self.started = True
        (optimizer,) = self.trainer.optimizers
        (config,) = self.trainer.lr_scheduler_configs
        scheduler: Any = config.scheduler
        fresh = make_optimizer(self, self.optimizer, self.learning_rate, False).param_groups
        scheduler.base_lrs = [group["lr"] for group in fresh]
        factor = self.learning_rate_factor(scheduler.last_epoch)
        for group, new in zip(optimizer.param_groups, fresh, strict=True):
            for name in ("weight_decay", "momentum", "betas"):
                if name in new:
                    group[name] = new[name]
            group["initial_lr"], group["lr"] = new["lr"], new["lr"] * factor

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Of another loss than today's, what it learned or counted is dropped; the present loss
        starts anew."""
        own = self.state_dict()
        for key in ("state_dict", "current_model_state"):
            if key in checkpoint:
                saved = {
                    k: v
                    for k, v in checkpoint[key].items()
                    if k in own or not k.startswith("losses.")
                }
                checkpoint[key] = {k: v for k, v in own.items() if k.startswith("losses.")} | saved
