"""Bootstrap intervals and the paired bootstrap test, over queries, or over users where one has several searches.

Efron & Tibshirani 1993; for retrieval: Sakai 2006 ("Evaluating evaluation metrics based on the bootstrap").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SAMPLES, LEVEL = 2000, 0.95
_BLOCK = 64


@dataclass(frozen=True)
class Estimate:
    """A mean and its bootstrap interval; n is what was resampled (queries or users)."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Comparison:
    """a − b on the same queries. p is two-sided; `relative` is (a − b) / b, with its own interval."""

    difference: float
    low: float
    high: float
    p: float
    relative: float
    relative_low: float
    relative_high: float
    n: int

    @property
    def clear(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low > 0


class Bootstrap:
    """Resamples clusters with replacement, the same way for every measure, so that comparisons are paired.

    Args:
        n: number of values that every measure will have.
        weights: traffic of each value [n]; by default 1.
        clusters: which values are resampled together [n], say the user of each search; by default each by itself.
    """

    def __init__(
        self,
        n: int,
        *,
        weights: NDArray[np.float64] | None = None,
        clusters: Sequence[object] | None = None,
        samples: int = SAMPLES,
        seed: int = 0,
    ) -> None:
        if n == 0:
            raise ValueError("nothing to resample")
        self.weights = np.ones(n) if weights is None else np.asarray(weights, float)
        number: dict[object, int] = {}
        self._cluster = np.array([number.setdefault(c, len(number)) for c in clusters or range(n)])
        self.n, self.samples, self.seed = len(number), samples, seed

    def _means(self, *columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weighted mean of each column in each resample, [samples, columns]."""
        sums = np.stack(
            [np.bincount(self._cluster, c * self.weights, self.n) for c in (*columns, np.ones(len(columns[0])))]
        )
        rng = np.random.default_rng(self.seed)
        out = np.empty((self.samples, len(columns)))
        for start in range(0, self.samples, _BLOCK):
            size = min(_BLOCK, self.samples - start)
            drawn = rng.multinomial(self.n, np.full(self.n, 1 / self.n), size=size) @ sums.T
            with np.errstate(invalid="ignore", divide="ignore"):
                out[start : start + size] = drawn[:, :-1] / drawn[:, -1:]
        return out

    def _mean(self, values: NDArray[np.float64]) -> float:
        return float((values * self.weights).sum() / self.weights.sum())

    def estimate(self, values: NDArray[np.float64]) -> Estimate:
        """The weighted mean of values [n] with its interval."""
        low, high = _interval(self._means(values)[:, 0])
        return Estimate(self._mean(values), low, high, self.n)

    def compare(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> Comparison:
        """Paired: both resampled together. a, b [n]."""
        means = self._means(a, b)
        difference = means[:, 0] - means[:, 1]
        # Two-sided: how often the resampled difference is on the other side of 0; never exactly 0.
        tail = min((difference <= 0).sum(), (difference >= 0).sum())
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = difference / means[:, 1]
            relative = (self._mean(a) - self._mean(b)) / np.float64(self._mean(b))
        return Comparison(
            self._mean(a) - self._mean(b),
            *_interval(difference),
            min(1.0, 2 * (tail + 1) / (self.samples + 1)),
            float(relative),
            *_interval(ratio),
            self.n,
        )


def _interval(values: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
