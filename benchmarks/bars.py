"""What every benchmark with bars ends in: lines `bar NAME VALUE TARGET ok|short`, and exit code 1 if one is not ok.

A bar that was asked for and that nothing was measured for is a line, too, and not ok:
`bar NAME – TARGET not measured (WHY)`.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

SENSES = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}


@dataclass(frozen=True)
class Bar:
    """One line of the verdict.

    Args:
        value: what was measured; None for nothing. sense: how it has to lie to the target, one of SENSES.
        why: why nothing was measured, or the command that measures it.
    """

    name: str
    value: float | None
    target: float
    sense: str = ">="
    why: str = ""

    @property
    def ok(self) -> bool:
        return self.value is not None and bool(SENSES[self.sense](self.value, self.target))

    def __str__(self) -> str:
        if self.value is None:
            return f"bar {self.name} – {_figure(self.target)} not measured ({self.why})"
        return f"bar {self.name} {_figure(self.value)} {_figure(self.target)} {'ok' if self.ok else 'short'}"


def _figure(value: float) -> str:
    """Four decimals below 10, where the bars of quality lie; one above: counts, minutes, milliseconds."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def verdict(bars: Sequence[Bar]) -> int:
    """Prints the bars; returns the exit code."""
    for bar in bars:
        print(bar)
    return 0 if all(bar.ok for bar in bars) else 1
