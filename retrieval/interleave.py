"""Two rank profiles tested against each other online: their hits interleaved into one list, by team draft.

Source: Radlinski, Kurup, Joachims, How does clickthrough data reflect retrieval quality? (CIKM 2008). In each round a
coin says which profile picks first; each picks its best item that is not in the list yet. The profile whose items get
more clicks wins the search. A fraction of an A/B test's traffic finds the same difference.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Collection, Sequence

from retrieval.results import Hit


def team_draft(
    first: Sequence[Hit], second: Sequence[Hit], length: int, seed: str, last: Collection[str] = ()
) -> list[Hit]:
    """The first `length` of the two lists interleaved; each hit names the profile that picked it (`team`, which the
    lists' own hits bear). Pinned items lead and are of no team: both lists have them.

    seed: of the coin; pages of one search are made with the same, so that they continue one list. last: buried items,
    drafted once neither list has another.
    """
    if last:
        one, two = ([hit for hit in some if hit.item_id not in last] for some in (first, second))
        drafted = team_draft(one, two, length, seed)
        one, two = ([hit for hit in some if hit.item_id in last] for some in (first, second))
        return drafted + team_draft(one, two, length - len(drafted), seed)
    coin = random.Random(seed)
    drafted = [hit for hit in first if hit.pinned]
    seen = {hit.item_id for hit in drafted}
    lists = [[hit for hit in some if not hit.pinned] for some in (first, second)]
    at = [0, 0]
    while len(drafted) < length:
        picked = False
        for team in (0, 1) if coin.random() < 0.5 else (1, 0):
            some = lists[team]
            while at[team] < len(some) and some[at[team]].item_id in seen:
                at[team] += 1
            if at[team] < len(some) and len(drafted) < length:
                hit = some[at[team]]
                seen.add(hit.item_id)
                drafted.append(hit)
                picked = True
        if not picked:
            break
    return drafted


def of_team(hits: Sequence[Hit], team: str) -> list[Hit]:
    """The hits, each marked with its profile."""
    return [hit if hit.pinned else dataclasses.replace(hit, team=team) for hit in hits]


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p-value of so many wins and losses of searches, ties left out, under equal chances.

    >>> sign_test(5, 5), round(sign_test(9, 1), 4)
    (1.0, 0.0215)
    """
    n, most = wins + losses, max(wins, losses)
    if n == 0:
        return 1.0
    equal = n * math.log(2) - math.lgamma(n + 1)
    tail = (math.exp(-math.lgamma(k + 1) - math.lgamma(n - k + 1) - equal) for k in range(most, n + 1))
    return min(1.0, 2 * sum(tail))
