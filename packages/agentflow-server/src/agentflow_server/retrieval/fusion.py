"""From ranked lists to one answer: fusion, freshness, diversity. Pure arithmetic; called by `search`."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from agentflow_server.retrieval.embedding import Vectors


def reciprocal_ranks(lists: Sequence[tuple[float, Sequence[int]]], k: float) -> dict[int, float]:
    """Fuse ranked lists (Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion", SIGIR 2009).

    Args:
        lists: (weight, numbers, best first). k: how little the first places stand out.

    Returns:
        A score for each number, 1 for what is first in every list that has a weight.
    """
    most = sum(weight for weight, _ in lists) / (k + 1)
    fused: dict[int, float] = {}
    for weight, numbers in lists:
        for rank, number in enumerate(numbers, 1):
            fused[number] = fused.get(number, 0.0) + weight / (k + rank) / most if most else 0.0
    return fused


def freshness(age_days: float, half_life_days: float) -> float:
    """1 for what is new, a half after the half-life."""
    return math.pow(0.5, max(age_days, 0.0) / half_life_days)


def diverse(scores: Mapping[int, float], vectors: Mapping[int, Vectors], *, weight: float, limit: int) -> list[int]:
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): next is what is relevant and unlike the chosen.

    Args:
        weight: 1 looks at relevance only, 0 at difference only.
    """
    left = sorted((number for number in scores if number in vectors), key=lambda number: -scores[number])
    if not left:
        return sorted(scores, key=lambda number: -scores[number])[:limit]
    rows = np.stack([vectors[number] for number in left])
    top = max(scores[number] for number in left) or 1.0
    relevance = np.asarray([scores[number] / top for number in left], np.float32)
    closest = np.zeros(len(left), np.float32)
    open_ = np.ones(len(left), bool)
    chosen: list[int] = []
    while len(chosen) < limit and open_.any():
        worth = weight * relevance - (1 - weight) * closest
        place = int(np.argmax(np.where(open_, worth, -np.inf)))
        chosen.append(left[place])
        open_[place] = False
        closest = np.maximum(closest, rows @ rows[place])
    return chosen
