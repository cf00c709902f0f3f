"""Is the same object found again in other images? Rank-1, rank-5, mAP and TPR at FAR.

A query is an object with an identity, its vector read at its true box. The gallery is what the
other images hold, never the query's own image, by falling cosine with the query:

* "truth": all annotated objects, with other identities and without any;
* "detections": all detections, as person search reports them. One of them is right where it is the
  most similar of those that overlap the object enough (`overlap_needed`), any other one on the same
  object is wrong, and objects without a detection are never found.

AP of a query: the precision at the rank of every right one, their mean over those in the gallery
("ap"), or over all objects of that identity in other images, which multiplies it with the recall of
the detector ("ap_recall"). Queries whose identity is in no other image do not count.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from detector.evaluation.bootstrap import LEVEL, image_weights, margin_of_error, standard_error
from detector.evaluation.voc import box_iou

RATES = (1e-1, 1e-2, 1e-3, 1e-4)
TPR = tuple(f"TPR@FAR{rate:.0e}".replace("e-0", "e-") for rate in RATES)
BLOCK = 256  # objects whose pairs with all others are looked at together
GRID = 400  # thresholds at which samples of the queries are counted


class Objects(NamedTuple):
    """M objects or detections: vectors (M, D) of any length · identities (M,), -1 none ·
    image_ids (M,) · boxes (M, 4) x, y, width, height, pixels of the original image."""

    vectors: np.ndarray
    identities: np.ndarray
    image_ids: np.ndarray
    boxes: np.ndarray


class Ranking(NamedTuple):
    """Of every query Q: its row in the objects · whether the first, or one of the first five, of
    the gallery is right (0 or 1) · both APs, each (Q,)."""

    rows: np.ndarray
    rank1: np.ndarray
    rank5: np.ndarray
    ap: np.ndarray
    ap_recall: np.ndarray


class Figures(NamedTuple):
    """`values`: name -> figure, nan where it cannot be told · `margins`: half of the 95 % interval
    of each, over the images of the queries · `queries`: how many there are."""

    values: dict[str, float]
    margins: dict[str, float]
    queries: int


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (M, D) of length 1; one of length 0 stays."""
    vectors = np.asarray(vectors, np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def overlap_needed(boxes: np.ndarray) -> np.ndarray:
    """IoU (M,) from which a detection shows an object: 0.5, less for those below some 24 pixels, of
    which a frame of 5 pixels is more (protocol of CUHK-SYSU and PRW)."""
    width, height = boxes[:, 2:].T
    return np.minimum(0.5, width * height / ((width + 10) * (height + 10)))


def rank_truth(objects: Objects) -> Ranking:
    """Queries against all annotated objects of other images."""
    found = [np.array([row]) for row in range(len(objects.identities))]
    return _rank(objects, objects, found)


def rank_detections(objects: Objects, detections: Objects) -> Ranking:
    """Queries against all detections of other images."""
    found = [np.zeros(0, int)] * len(objects.identities)
    needed = overlap_needed(objects.boxes)
    for image_id in np.unique(objects.image_ids):
        rows = np.flatnonzero(detections.image_ids == image_id)
        members = np.flatnonzero(objects.image_ids == image_id)
        overlaps = box_iou(objects.boxes[members], detections.boxes[rows])
        for member, overlap in zip(members, overlaps, strict=True):
            found[member] = rows[overlap >= needed[member]]
    return _rank(objects, detections, found)


def _rank(objects: Objects, gallery: Objects, found: list[np.ndarray]) -> Ranking:
    """`found`: of every object the rows of the gallery that show it."""
    vectors, candidates = unit(objects.vectors), unit(gallery.vectors)
    rows = []
    for query in np.flatnonzero(objects.identities >= 0):
        same = objects.identities == objects.identities[query]
        wanted = np.flatnonzero(same & (objects.image_ids != objects.image_ids[query]))
        if not len(wanted):
            continue
        similarity = candidates @ vectors[query]
        right = np.zeros(len(similarity), bool)
        for member in wanted:
            free = found[member][~right[found[member]]]
            if len(free):
                right[free[similarity[free].argmax()]] = True
        others = np.flatnonzero(gallery.image_ids != objects.image_ids[query])
        order = others[np.argsort(-similarity[others], kind="stable")]
        hits = right[order]
        precision = (np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].sum()
        count = max(1, np.count_nonzero(hits))
        figures = hits[:1].any(), hits[:5].any(), precision / count, precision / len(wanted)
        rows.append((query, *figures))
    columns = np.array(rows, float).reshape(-1, 5).T
    return Ranking(columns[0].astype(int), *columns[1:])


def tpr_at_far(objects: Objects, rates: Sequence[float] = RATES) -> np.ndarray:
    """Share (len(rates),) of the pairs of one identity that are more similar than all but a share
    `rate` of the pairs of two identities; pairs are of different images, and count in both orders.
    nan without pairs of one identity, and where there are fewer than 1 / rate pairs of two."""
    most = int(max(rates) * len(objects.identities) ** 2) + 2  # what any rate asks for
    right, wrong, count = [np.zeros(0)], np.zeros(0, np.float32), 0
    for cosines, genuine, impostor in _pairs(objects):
        right.append(cosines[genuine])
        wrong, count = np.append(wrong, cosines[impostor]), count + int(impostor.sum())
        if len(wrong) > 2 * most:
            wrong = np.partition(wrong, -most)[-most:]
    passed, wrong = np.concatenate(right), np.append(np.sort(wrong)[::-1], -np.inf)
    result = np.full(len(rates), np.nan)
    for column, rate in enumerate(rates):
        allowed = int(rate * count + 1e-9)
        if allowed and len(passed):
            result[column] = np.count_nonzero(passed > wrong[allowed]) / len(passed)
    return result


def sample_tpr(objects: Objects, weights: np.ndarray, rates: Sequence[float] = RATES) -> np.ndarray:
    """The same (B, len(rates)) for B samples of the objects, in which `weights` (B, M) count how
    often each is there as the first of a pair; to the resolution of some hundred thresholds."""
    wrong_pairs = [cosines[impostor] for cosines, _, impostor in _pairs(objects)]
    result = np.full((len(weights), len(rates)), np.nan)
    if not sum(map(len, wrong_pairs)):
        return result
    scores = np.sort(np.concatenate(wrong_pairs))[::-1]
    steps = np.geomspace(1, len(scores), GRID).round().astype(int) - 1  # fine at the top
    thresholds = np.append(np.unique(scores[np.unique(steps)])[::-1], -np.inf)
    tables = [
        (_counts(cosines, genuine, thresholds), _counts(cosines, impostor, thresholds))
        for cosines, genuine, impostor in _pairs(objects)
    ]
    right, wrong = (weights @ np.concatenate(table) for table in zip(*tables, strict=True))
    for row in np.flatnonzero(right[:, -1] > 0):
        for column, rate in enumerate(rates):
            allowed = rate * wrong[row, -1]
            last = np.searchsorted(wrong[row], allowed, side="right") - 1
            if allowed >= 1 and last >= 0:
                result[row, column] = right[row, last] / right[row, -1]
    return result


def _pairs(objects: Objects) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Cosines of some objects with all, and which of them are pairs of one identity and of two,
    each (BLOCK, M), until all objects were there: (M, M) does not fit into memory."""
    known, vectors = objects.identities >= 0, unit(objects.vectors)
    for start in range(0, len(known), BLOCK):
        rows = slice(start, start + BLOCK)
        pair = known[rows, None] & known & (objects.image_ids[rows, None] != objects.image_ids)
        same = objects.identities[rows, None] == objects.identities
        # rounded, so that equal vectors have equal cosines wherever they are
        yield (vectors[rows] @ vectors.T).astype(np.float32), pair & same, pair & ~same


def _counts(cosines: np.ndarray, mask: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(BLOCK, T): how many masked cosines of every row exceed each of the falling thresholds."""
    table = np.zeros((len(cosines), len(thresholds)))
    for row, (values, chosen) in enumerate(zip(cosines, mask, strict=True)):
        place = np.searchsorted(-thresholds, -values[chosen], side="right")
        table[row] = np.bincount(place, minlength=len(thresholds))[: len(thresholds)]
    return table.cumsum(axis=1)


def identity_figures(
    objects: Objects, detections: Objects | None = None, draws: int = 1000
) -> Figures:
    """All figures: "rank1", "rank5", "mAP" and "TPR@FAR1e-1" to "1e-4" on the truth; with
    `detections` also "search_rank1", "search_rank5", "search_mAP" and "search_mAP_recall".

    Margins are those of a bootstrap over the queries, which are drawn image by image, against the
    same gallery: queries of one image share its light and its neighbors. `draws` 0, no object, or a
    figure that no sample moves, as where every query is right: no margin.
    """
    values: dict[str, float] = {}
    samples: dict[str, np.ndarray] = {}
    image, number = np.unique(objects.image_ids, return_inverse=True)
    draws = draws if len(image) else 0
    weights = image_weights(len(image), draws)[:, number] if draws else np.zeros((0, len(number)))
    rankings = {"": rank_truth(objects)}
    if detections is not None:
        rankings["search_"] = rank_detections(objects, detections)
    for prefix, ranking in rankings.items():
        columns = {"rank1": ranking.rank1, "rank5": ranking.rank5, "mAP": ranking.ap}
        if prefix:
            columns["mAP_recall"] = ranking.ap_recall
        for name, column in columns.items():
            each = weights[:, ranking.rows]
            total = each.sum(axis=1)
            values[prefix + name] = float(column.mean()) if len(column) else np.nan
            samples[prefix + name] = each @ column / np.where(total > 0, total, np.nan)
    values |= dict(zip(TPR, tpr_at_far(objects).tolist(), strict=True))
    if draws:
        samples |= dict(zip(TPR, sample_tpr(objects, weights).T, strict=True))
    margins = {}
    for name, sample in samples.items():
        # a pair has two objects, of which only the first was drawn: both vary alike
        error = standard_error(sample, len(image)) * (2 if name in TPR else 1)
        if error > 0 and not np.isnan(values[name]):  # all queries right: not known how sure
            margins[name] = margin_of_error(LEVEL / 2, 0.0, error, 1, len(image))
    return Figures(values, margins, len(rankings[""].rows))
