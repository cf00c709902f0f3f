"""What an ablation leaves behind: tables, pictures, one HTML page, TensorBoard."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from detector.ablation.cells import Ablation
from detector.ablation.grid import RECOGNITION, check_fairness, flatten
from detector.ablation.notes import write_notes
from detector.ablation.page import Document
from detector.ablation.pictures import draw_curves, draw_effects
from detector.ablation.summary import Summary, measure_queries, summarize
from detector.ablation.tables import (
    conditions_table,
    format_csv,
    main_table,
    rates_table,
    scores_table,
)
from detector.config.errors import UserError
from detector.config.files import read_json, write
from detector.config.resolve import load
from detector.evaluation.bootstrap import bootstrap_ap, full_ap, image_weights
from detector.evaluation.matches import match_all
from detector.evaluation.pictures import NO_MATPLOTLIB, save_picture
from detector.evaluation.provenance import check_comparable

SETTINGS = ("optimizer.lr", "model.class_loss.weight", "model.box_loss.weight")


def report(
    ablation: Ablation,
    truth: Mapping[str, Any],
    draws: int,
    jobs: int,
    command: str,
    metric: str = "AP",
) -> None:
    """Writes what is known of all cells to the ablation's folder, and prints the tables.

    `truth`: the objects that all cells are evaluated against, as the content of a COCO file;
    `draws`: samples of its images; `jobs`: cells that ran at a time; `command`: as it was typed;
    `metric`: what methods are compared by. UserError if no cell is done, or one ran with another
    configuration than planned.
    """
    out = ablation.out
    write(out / "results.csv", format_csv(ablation))
    fairness = check_runs(ablation)
    summary = summarize_runs(ablation, truth, draws, metric)
    tables = {
        "Results": main_table(summary),
        "Conditions": conditions_table(summary),
        "TPR at FAR": rates_table(summary),
        "Scores": scores_table(summary),
    }
    tables = {heading: table for heading, table in tables.items() if table.rows}
    document = Document(out.name, write_notes(summary, jobs), tables, fairness, command)
    write(out / "table.md", document.to_markdown())
    write(out / "table.tex", document.to_latex())
    print(f"\n{document.to_text()}")
    pictures = save_pictures(summary)
    if not pictures:
        print(NO_MATPLOTLIB)
    files = {heading: out / f"{heading.lower()}.png" for heading in pictures}
    for cell in ablation.cells:
        file = ablation.run_folder(cell) / "gradients.png"
        files |= {f"Gradient norms: {cell.name}": file} if file.is_file() else {}
    write(out / "index.html", document.to_html(files))
    log_summary(out / "summary", document.to_markdown(), pictures)
    log_settings(ablation)
    print(f"\ntables: {out / 'table.md'}, table.tex, results.csv; page: {out / 'index.html'}")
    print(f"tensorboard --logdir {out}")


def check_runs(ablation: Ablation) -> list[str]:
    """Lines that say in what the cells differ, as planned and as they really ran."""
    done = ablation.done()
    if not done:
        raise UserError(f"no cell is done yet: there are no figures; see {ablation.out / 'logs'}")
    planned = [cell.config for cell in ablation.cells]
    ran = [{**load(ablation.run_folder(cell) / "config.yaml"), "run": None} for cell in done]
    check_fairness(done, ran, ablation.tuned)
    return check_fairness(ablation.cells, planned, ablation.tuned)


def summarize_runs(
    ablation: Ablation, truth: Mapping[str, Any], draws: int, metric: str = "AP"
) -> Summary:
    """Measures all cells that are done, and summarizes them."""
    folders = {cell.name: ablation.run_folder(cell) / "eval" for cell in ablation.done()}
    metrics = {name: read_json(folder / "metrics.json") for name, folder in folders.items()}
    ids = check_comparable(metrics, truth)
    known = sorted({image["id"] for image in truth["images"]} if ids is None else set(ids))
    weights, measured = image_weights(len(known), draws), {}
    for name in tqdm(folders, "comparing", unit="cell", disable=None, leave=False):
        if metric in RECOGNITION:
            path = folders[name] / "queries.json"
            # a cell without the head recognizes nothing
            if path.is_file() and (queries := read_json(path)):
                measured[name] = measure_queries(queries, metric, known, weights)
            continue
        matches = match_all(truth, read_json(folders[name] / "detections.json"), ids)
        place = ("AP", "AP50").index(metric)
        measured[name] = float(full_ap(matches)[place]), bootstrap_ap(matches, weights)[place]
    if not measured:
        raise UserError(
            f"--metric {metric}: no cell was trained with an embedding head "
            "and evaluated on identities that are in two images"
        )
    return summarize(ablation, measured, metric, weights)


def save_pictures(summary: Summary) -> dict[str, np.ndarray]:
    """effects.png and curves.png; heading -> RGB (H, W, 3), empty without matplotlib."""
    out = summary.ablation.out
    pictures = {
        "Effects": save_picture(out / "effects.png", draw_effects, summary, dpi=150),
        "Curves": save_picture(
            out / "curves.png", draw_curves, summary.ablation, summary.curves, dpi=150
        ),
    }
    return {heading: pixels for heading, pixels in pictures.items() if pixels is not None}


def log_summary(folder: Path, text: str, pictures: Mapping[str, np.ndarray]) -> None:
    """Tables and pictures for TensorBoard (tabs Text, Images), in the place of former ones."""
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(str(folder)) as writer:
        writer.add_text("ablation", text)
        for heading, pixels in pictures.items():
            writer.add_image(f"ablation/{heading}", pixels, dataformats="HWC")


def log_settings(ablation: Ablation) -> None:
    """The settings of every cell with its figures for TensorBoard (tab HParams)."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    for cell in ablation.cells:
        outcome, folder = ablation.outcome(cell), ablation.run_folder(cell) / "hparams"
        if outcome.state != "done":
            continue
        shutil.rmtree(folder, ignore_errors=True)
        flat = flatten(cell.config)
        settings = {key: flat[key] for key in SETTINGS if key in flat}
        settings |= {**cell.point, "seed": cell.seed}
        metrics = {f"final/{k}": v for k, v in outcome.result.items() if v is not None}
        with SummaryWriter(str(folder)) as writer:
            file_writer: Any = writer._get_file_writer()
            for summary in hparams(settings, metrics):
                file_writer.add_summary(summary)
            for name, value in metrics.items():
                writer.add_scalar(name, value)
