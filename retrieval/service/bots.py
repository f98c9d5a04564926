"""Bots, told apart as in training (`mrse_model.data.search_log`): their clicks stay in the log, where training leaves
them out by the same rule, and make no history.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from mrse_model.data.search_log import SpamRule

MAX_USERS = 50_000  # known at once, the last to act


@dataclass
class _Seen:
    hour: int = 0
    in_hour: int = 0
    shown: int = 0
    searches: int = 0
    clicked: int = 0
    bot: bool = False


class BotGuard:
    """What one worker sees of each user."""

    def __init__(self, rule: SpamRule = SpamRule()) -> None:  # noqa: B008 (frozen)
        self._rule = rule
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def searched(self, user: str, shown: int, at: float, further: bool = False) -> None:
        """A page that a user was shown. further: of a search whose first page was counted."""
        seen = self._of(user)
        hour = int(at // 3600)
        if not further:
            seen.in_hour = seen.in_hour + 1 if hour == seen.hour else 1
            seen.hour = hour
        if shown >= self._rule.min_shown:
            seen.searches += not further
            seen.shown += shown
        seen.bot = seen.bot or seen.in_hour > self._rule.searches_per_hour

    def acted(self, user: str, kind: str) -> bool:
        """An event of a user; whether it is a bot's."""
        seen = self._of(user)
        seen.clicked += kind == "click"
        rule = self._rule
        seen.bot = seen.bot or (seen.searches >= rule.min_searches and seen.clicked >= rule.click_share * seen.shown)
        return seen.bot

    def _of(self, user: str) -> _Seen:
        seen = self._seen.setdefault(user, _Seen())
        self._seen.move_to_end(user)
        if len(self._seen) > MAX_USERS:
            self._seen.popitem(last=False)
        return seen
