"""Which checkpoint a run goes on from."""

from pathlib import Path

import pytest

from detector.config.errors import UserError
from detector.run.folder import add_epoch
from detector.run.resume import last_checkpoint


def test_the_last_checkpoint_or_a_new_start(tmp_path: Path) -> None:
    """The first best.ckpt is written before the first last.ckpt: what ends a run in between leaves
    a run that begins anew. Later a missing last.ckpt is a mistake."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    assert last_checkpoint(tmp_path) is None
    (folder / "best.ckpt").write_bytes(b"weights")
    assert last_checkpoint(tmp_path) is None
    add_epoch(tmp_path, {"epoch": 1, "val/AP": 0.5})
    assert last_checkpoint(tmp_path) is None
    add_epoch(tmp_path, {"epoch": 2, "val/AP": 0.4})
    with pytest.raises(UserError, match=r"last\.ckpt is missing: copy best\.ckpt there"):
        last_checkpoint(tmp_path)
    (folder / "last.ckpt").write_bytes(b"weights")
    assert last_checkpoint(tmp_path) == folder / "last.ckpt"
