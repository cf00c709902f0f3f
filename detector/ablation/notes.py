"""What an ablation's table can and cannot say, in sentences."""

import math

import numpy as np

from detector.ablation.cells import Ablation
from detector.ablation.effects import minimal_detectable_difference
from detector.ablation.grid import RECOGNITION
from detector.ablation.summary import RATES, Summary, baseline, point_title
from detector.ablation.tuning import search_metric
from detector.config.types import format_value

RISING = 0.01  # AP gained in the last quarter of training, see `Outcome`, that is worth a note
HEADINGS = {
    "higher": "Higher than the baseline",
    "lower": "Lower than the baseline",
    "no difference shown": "Not separated from it (and not ranked)",
}


def write_notes(summary: Summary, jobs: int) -> list[str]:
    """One note after another, those that do not apply left out."""
    notes = [
        note_missing(summary),
        note_figures(summary),
        *(note_verdict(summary, verdict) for verdict in HEADINGS),
        note_rates(summary),
        note_power(summary),
        note_convergence(summary),
        note_tuning(summary.ablation),
        note_times(jobs),
    ]
    return [note for note in notes if note]


def note_missing(summary: Summary) -> str:
    listed = "; ".join(f"{name} {reason}" for name, reason in summary.missing.items())
    count = len(summary.missing)
    return f"INCOMPLETE: {count} cells have no figures: {listed}." if count else ""


def note_figures(summary: Summary) -> str:
    """What metric, interval and p mean; of one method, which is compared to none, the metric."""
    axes, seeds = summary.ablation.axes, len(summary.ablation.seeds)
    spread = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "of 1 seed"
    figures = f"{summary.metric} is that of the last epoch, {spread}."
    compared = [c for row in summary.rows for c in (row.to_baseline, row.change) if c]
    if not compared:
        return figures
    base = point_title(baseline(summary.rows[0].point, axes), axes)
    pairing = f"Differences are to {base} (under the same conditions), paired by seed and image"
    images = f"other images than these {summary.images}"
    if summary.metric in RECOGNITION:
        images = "other queries (drawn by image), against the same gallery and identities"
    if seeds == 1:
        return (
            f"{figures} {pairing}, with 95 % intervals for {images}. How much another seed would "
            "change is unknown and not in them: of one seed nothing here tells a better method "
            "from a better run."
        )
    has_lone = any(comparison.seeds == 1 for comparison in compared)
    lone = " Of one common seed they are for the images alone." if has_lone else ""
    return (
        f"{figures} {pairing}, with 95 % intervals for other seeds and {images}.{lone} p is "
        "corrected for the number of comparisons (Holm), and the intervals are not."
    )


def note_verdict(summary: Summary, verdict: str) -> str:
    """The points of which the table says so."""
    names = [
        point_title(row.point, summary.ablation.axes)
        for row in summary.rows
        if row.to_baseline is not None and row.to_baseline.verdict == verdict
    ]
    return f"{HEADINGS[verdict]}: {', '.join(names)}." if names else ""


def note_rates(summary: Summary) -> str:
    """Why there are no verdicts of TPR at FAR."""
    if not any(row.figures[name] for row in summary.rows for name in RATES):
        return ""
    return (
        "TPR@FAR is the mean ± standard deviation over seeds, without interval, p and verdict: it "
        "is a share of pairs of objects, no mean over queries. Every cell's eval/metrics.json has "
        "the interval for other images. -: too few pairs of two identities."
    )


def note_power(summary: Summary) -> str:
    """Which difference would have been shown."""
    least, seeds = minimal_detectable_difference([row.to_baseline for row in summary.rows])
    if math.isnan(least):
        return ""
    return (
        f"With {seeds} seeds a difference of {least:.3f} {summary.metric} "
        "would have been shown in 4 of 5 such ablations, of methods that vary as these do on "
        "average; smaller ones may well exist."
    )


def note_convergence(summary: Summary) -> str:
    rises = {
        point_title(row.point, summary.ablation.axes): float(np.mean(row.figures[summary.rise]))
        for row in summary.rows
        if row.figures[summary.rise]
    }
    figure = "AP" if summary.rise == "rise" else "identity/mAP"
    rising = [f"{name} {rise:+.3f}" for name, rise in rises.items() if rise > RISING]
    if rising:
        return (
            f"Not converged: {figure} still rose in the last quarter of training (from the last "
            f"validation before it on): {', '.join(rising)}. A longer training may order them "
            "differently."
        )
    note = f"In the last quarter of training no {figure} rose by more than {RISING}."
    return note if rises else ""


def note_tuning(ablation: Ablation) -> str:
    if ablation.tuned:
        values = {
            point_title(tuple(cell.point.values()), ablation.axes): cell.tuned
            for cell in ablation.cells
        }
        listed = [
            f"{name} {', '.join(map(format_value, v.values()))}" for name, v in values.items()
        ]
        return (
            f"For each {' and '.join(ablation.tuned)} were chosen by "
            f"{search_metric(ablation.axes)}, by a search with one seed "
            f"on images set apart from training (tuning/table.md): {'; '.join(listed)}."
        )
    return (
        "Learning rate and loss weights are the same for all, not tuned for each (--tune): that "
        "favours the losses whose gradients are of the size they were chosen for."
    )


def note_times(jobs: int) -> str:
    shared = f"{jobs} cells ran side by side: times are those of a shared machine."
    return shared if jobs > 1 else ""
