"""Silence: what Lightning and torch say that nobody can act on."""

import logging
import threading
import warnings

from detector.config.errors import DISK

UNHELPFUL = (  # the tests ignore these warnings, too
    r".*isinstance\(treespec, LeafSpec\).*",  # torch 2.11 and later, used by Lightning 2.6
    ".*does not have many workers.*",  # Lightning's advice on tiny runs, as are the next
    ".*smaller than the logging interval.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*callbacks used to create the checkpoint.*",  # a resume without early stopping or averages
    ".*sync_dist=True.*when logging on epoch level.*",
    r".*module\(s\) in eval mode at the start.*",  # frozen stages, which are meant
    ".*grad attribute of a Tensor that is not a leaf.*",  # torch's compiler, given predictions
)


def quiet() -> None:
    """No adverts, and none of these warnings."""
    for message in UNHELPFUL:
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("pytorch_lightning.accelerators.cuda").setLevel(logging.WARNING)
    threading.excepthook = _report_thread


def _report_thread(error: threading.ExceptHookArgs) -> None:
    """Nothing for a full disk in the thread that writes TensorBoard's files: the main thread is
    given the same error when it next writes, and tells the user in one line."""
    if not (isinstance(error.exc_value, OSError) and error.exc_value.errno in DISK):
        threading.__excepthook__(error)
