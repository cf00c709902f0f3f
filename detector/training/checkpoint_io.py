"""Checkpoints on disk: written whole or not at all, and the best one kept over every resume."""

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from detector.config.files import write

# in the state of a saver, beside those of `best_k_models`
PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


class WholeFiles(TorchCheckpointIO):
    """Lightning writes to the system's folder for temporary files and moves the file from there,
    which copies it where that is another disk: a kill leaves half a checkpoint. Here the file is
    written beside the old one and takes its place at once. UserError where the disk is full."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write(Path(path), buffer.getvalue())


class Saver(ModelCheckpoint):
    """Knows the best score of a run that is resumed from another folder, too: Lightning forgets it
    where the folder was renamed or moved, and the next checkpoint would replace a better one."""

    @property
    def state_key(self) -> str:
        """Checkpoints have the state of a saver under Lightning's name."""
        return super().state_key.replace(type(self).__name__, ModelCheckpoint.__name__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        scores = {self._here(path): score for path, score in state_dict["best_k_models"].items()}
        moved = {key: self._here(state_dict[key]) for key in PATHS}
        super().load_state_dict(
            state_dict | moved | {"best_k_models": scores, "dirpath": self.dirpath}
        )

    def _here(self, path: str) -> str:
        """The file of that name in the folder of now; "" for none."""
        assert self.dirpath is not None
        return str(Path(self.dirpath, Path(path).name)) if path else path
