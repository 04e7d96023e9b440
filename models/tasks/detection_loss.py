"""The loss of a detector. Imports torch: tasks import this module inside their functions."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NEAR = 1.5
"""Strides from a box's centre within which a point may tell it (centre sampling: FCOS, arXiv 1904.01355)."""
CANDIDATES = 10  # points whose overlaps, added up, say how many tell a box
BOX_COST, FAR_COST = 3.0, 1e5
BOX_WEIGHT = 2.0
_SMALL = 1e-6


def detection_loss(boxes: Tensor, scores: Tensor, targets: Tensor, points: NDArray[np.float32]) -> Tensor:
    """Quality focal loss of the scores (Li et al. 2020, arXiv 2006.04388) and GIoU loss of the boxes (Rezatofighi et
    al. 2019, arXiv 1902.09630) of the points that are to tell one, both per such point.

    Args:
        boxes: [N, P, 4], centre x, centre y, width, height in pixels.
        scores: [N, P, L], 0..1.
        targets: [N, M, 5], label and corners; rows of -1 are padding.
        points: see `points_of`.
    """
    corners, places = _corners(boxes), torch.from_numpy(points).to(boxes)
    wanted = torch.zeros_like(scores)
    told, true, weights = [], [], []
    for picture, rows in enumerate(targets.to(boxes)):
        real = rows[rows[:, 0] >= 0]
        if not len(real):
            continue
        with torch.no_grad():
            point, box = assigned(corners[picture], scores[picture], real, places)
            overlap = giou(corners[picture][point], real[box, 1:])[1]
            wanted[picture, point, real[box, 0].long()] = overlap
        told.append(corners[picture][point])
        true.append(real[box, 1:])
        weights.append(overlap)
    count = max(1, sum(map(len, told)))
    loss = quality_focal(scores, wanted).sum() / count
    if told:
        loss = loss + BOX_WEIGHT * (1 - giou(torch.cat(told), torch.cat(true))[0]).sum() / count
    return loss


def detection_distance(boxes: Tensor, scores: Tensor, other_boxes: Tensor, other_scores: Tensor) -> Tensor:
    """The same two losses with another network's answers as what is right, each point as sure as it is there."""
    sure = other_scores.amax(dim=2)
    count = sure.sum().clamp(min=1)
    apart = 1 - giou(_corners(boxes), _corners(other_boxes))[0]
    return (quality_focal(scores, other_scores).sum() + BOX_WEIGHT * (sure * apart).sum()) / count


def quality_focal(scores: Tensor, wanted: Tensor) -> Tensor:
    """|wanted - score|^2 x binary cross entropy, of each: 0 where the score is as wanted."""
    sure = scores.clamp(_SMALL, 1 - _SMALL)
    entropy = -(wanted * sure.log() + (1 - wanted) * (1 - sure).log())
    return (wanted - scores).square() * entropy


def assigned(corners: Tensor, scores: Tensor, real: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Which points are to tell which boxes, by SimOTA (Ge et al. 2021, YOLOX, arXiv 2107.08430).

    A box is told by as many points as the overlaps of its best `CANDIDATES` add up to, those of lowest cost: of score
    and overlap, and far more where the point is not inside the box and near its centre. A point tells one box.

    Args:
        corners: [P, 4] of the points' boxes.
        scores: [P, L].
        real: [M, 5], label and corners, M at least 1.

    Returns:
        Points and boxes, int64 [K] each.
    """
    overlap = giou(corners[None], real[:, None, 1:])[1]  # [M, P]
    away = torch.cat([points[:, :2] - real[:, None, 1:3], real[:, None, 3:] - points[:, :2]], dim=2)
    middle = (real[:, None, 1:3] + real[:, None, 3:]) / 2
    near = ((points[:, :2] - middle).abs() < NEAR * points[:, 2:]).all(dim=2)
    score = scores[:, real[:, 0].long()].T
    cost = -score.clamp(min=_SMALL).log() - BOX_COST * overlap.clamp(min=_SMALL).log()
    cost = cost + FAR_COST * ~(near & (away > 0).all(dim=2))
    best = overlap.topk(min(CANDIDATES, overlap.shape[1]), dim=1).values.sum(dim=1)
    counts = best.int().clamp(min=1)
    ranks = cost.argsort(dim=1).argsort(dim=1)
    chosen = torch.where(ranks < counts[:, None], cost, torch.inf)
    lowest, box = chosen.min(dim=0)
    point = lowest.isfinite().nonzero()[:, 0]
    return point, box[point]


def giou(some: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Generalised intersection over union, -1..1, and the plain one: corners [..., 4] -> [...]."""
    low, high = torch.maximum(some[..., :2], others[..., :2]), torch.minimum(some[..., 2:], others[..., 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    areas = ((one[..., 2:] - one[..., :2]).clamp(min=0).prod(dim=-1) for one in (some, others))
    union = (sum(areas) - common).clamp(min=_SMALL)
    around = torch.maximum(some[..., 2:], others[..., 2:]) - torch.minimum(some[..., :2], others[..., :2])
    hull = around.clamp(min=0).prod(dim=-1).clamp(min=_SMALL)
    plain = common / union
    return plain - (hull - union) / hull, plain


def _corners(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], dim=-1)
