"""Checkpoints on disk: written whole or not at all, read as plain data only."""

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from detector.config.files import write


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
