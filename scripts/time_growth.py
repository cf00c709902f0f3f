"""Does anything grow faster than it should?  python scripts/time_growth.py --out growth.png

A step's time against batch and objects an image, memory over epochs, evaluation against images: the
first, second and last should be linear, the third flat. Needs matplotlib (extra "plots").
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from tqdm import tqdm

from data.shapes import draw_dataset
from detector.config.resolve import resolve
from scripts.time_evaluation import WAYS, make_data
from scripts.time_losses import make_scene, take_turns, training_step

ROOT = Path(__file__).resolve().parents[1]
Curve = dict[int, float]


def steps(config: str, batches: list[int], objects: list[int], device: str) -> list[Curve]:
    """Seconds of a training step: against the batch at 7 objects an image, and against the objects
    at the second smallest batch."""
    pairs = [(batch, 7) for batch in batches] + [(batches[1], count) for count in objects]
    calls = {}
    for batch, count in dict.fromkeys(pairs):
        tree = resolve([config])
        tree["data"]["classes"] = [str(k) for k in range(6)]
        size = tree["data"]["size"]
        _, made = make_scene(batch, min(size), 6, count, device)
        made["images"] = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8).to(device)
        made["sizes"] = torch.tensor([size] * batch).to(device)
        calls[f"{batch} {count}"] = training_step(tree, made, device)
    found = {name: statistics.median(times) for name, times in take_turns(calls, 7).items()}
    return [
        {batch: found[f"{batch} 7"] for batch in batches},
        {count: found[f"{batches[1]} {count}"] for count in objects},
    ]


def memory(config: str, epochs: int) -> Curve:
    """GiB at most after every epoch of a real training on few drawn images."""
    with tempfile.TemporaryDirectory() as folder:
        draw_dataset(folder, train=32, val=8, size=96)
        run = Path(folder, "run")
        words = ["--data.format", "coco", "--data.root", folder, "--data.workers", "0"]
        words += ["--trainer.max_epochs", str(epochs), "--trainer.check_val_every_n_epoch", "1"]
        command = [sys.executable, str(ROOT / "train.py"), "--config", config, *words]
        subprocess.run([*command, "--run", str(run)], check=True, stdout=subprocess.DEVNULL)
        lines = json.loads((run / "metrics.json").read_text())["epochs"]
    return {line["epoch"]: line["memory"] for line in lines}


def evaluation(counts: list[int]) -> Curve:
    """Seconds of all figures of 100 detections an image."""
    found = {}
    for count in tqdm(counts, "evaluation", disable=None, leave=False):
        content, results = make_data(count, 80, 100)
        start = time.perf_counter()
        WAYS["all figures, fastest installed"](content, results)
        found[count] = time.perf_counter() - start
    return found


def draw(path: Path, curves: dict[str, Curve]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 7), layout="constrained")
    for panel, (title, curve) in zip(figure.subplots(2, 2).flat, curves.items(), strict=True):
        panel.plot(list(curve), list(curve.values()), "o-")
        panel.set(ylim=(0, None), xlim=(0, None), xlabel=title.split(" against ")[1])
        panel.set(title=title)
        panel.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default=str(ROOT / "configs" / "shapes.yaml"))
    parser.add_argument("--batches", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    parser.add_argument("--objects", type=int, nargs="+", default=[1, 30, 60, 120, 240])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--images", type=int, nargs="+", default=[500, 1000, 2000, 4000])
    parser.add_argument("--out", default="growth.png", help="picture (%(default)s)")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    by_batch, by_objects = steps(options.config, options.batches, options.objects, device)
    curves = {
        "seconds of a step against images in the batch": by_batch,
        "seconds of a step against objects an image": by_objects,
        "GiB at most against epochs": memory(options.config, options.epochs),
        "seconds of evaluation against images": evaluation(options.images),
    }
    for title, curve in curves.items():
        print(f"{title}: {', '.join(f'{x}: {y:.3f}' for x, y in curve.items())}")
    try:
        draw(Path(options.out), curves)
        print(f"picture: {options.out}")
    except ModuleNotFoundError:
        print("picture: needs matplotlib, pip install matplotlib")
    return curves


if __name__ == "__main__":
    main()
