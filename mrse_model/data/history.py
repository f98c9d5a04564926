"""What a user did before a moment: the last distinct items, newest first, and nothing from that moment or later.

The state is bounded: a few tens of events a user, however long the log.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mrse_model.config import TrainConfig
from mrse_model.data.example_files import KINDS


class Event(NamedTuple):
    """A click (kind 0), cart (1) or order (2) of a row in items, at a time in seconds."""

    time: int
    item: int
    kind: int
    search_id: str


@dataclass
class _User:
    seen: list[Event] = field(default_factory=list)  # newest first, one an item, all earlier than those pending
    pending: list[Event] = field(default_factory=list)  # oldest first, all of one time


class Histories:
    """The histories of all users, fed in time order.

    An item that was clicked again counts once, at its newest event: as in the `shopper` document, whose cells are keyed
    by item. A user whose id is "" is unknown and has no history.
    """

    def __init__(self, length: int) -> None:
        self.length = length
        self._users: dict[str, _User] = {}

    def before(self, user_id: str, time: int, *, search_id: str, targets: Collection[int]) -> list[Event]:
        """The last `length` events of the user strictly before `time`, without this search's and those of targets."""
        user = self._users.get(user_id)
        if user is None:
            return []
        self._settle(user, time)
        return [e for e in user.seen if e.search_id != search_id and e.item not in targets][: self.length]

    def add(self, user_id: str, events: list[Event]) -> None:
        """Adds events of one time, oldest first. The time must not be before that of the user's earlier events."""
        if not user_id or not events:
            return
        user = self._users.setdefault(user_id, _User())
        self._settle(user, events[0].time)
        user.pending = (user.pending + events)[-2 * self.length :]

    def _settle(self, user: _User, time: int) -> None:
        """Moves what is pending to what is seen once time has passed."""
        if not user.pending or user.pending[0].time == time:
            return
        if user.pending[0].time > time:
            raise ValueError("events must come in time order")
        distinct: dict[int, Event] = {}
        for event in (*reversed(user.pending), *user.seen):
            distinct.setdefault(event.item, event)
        # Twice the length is kept, so that a full history remains when the targets are taken out.
        user.seen = list(distinct.values())[: 2 * self.length]
        user.pending = []


def history_weight(kind: np.ndarray, age_seconds: np.ndarray, train: TrainConfig) -> np.ndarray:
    """Event weight × 0.5^(age / half-life), as mrse_model.serving.exported_model.event_weight does when serving."""
    base = np.array([train.event_weights.get(name, 1.0) for name in KINDS], np.float32)[kind]
    return base * 0.5 ** (np.maximum(age_seconds, 0) / (86400 * train.half_life_days))
