"""Histories hold against a slow one that reads the whole log for each question."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mrse_model.data.history import Event, Histories

LENGTH = 4
searches = st.lists(
    st.tuples(
        st.sampled_from(["u", "v", ""]),
        st.integers(0, 6),  # time: many ties
        st.sampled_from(["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"]),
        st.lists(st.integers(0, 12), min_size=1, max_size=3, unique=True),
    ),
    max_size=40,
).map(lambda rows: sorted(rows, key=lambda row: row[1]))


@given(searches)
def test_history_is_the_last_distinct_items_strictly_before(rows: list[tuple[str, int, str, list[int]]]) -> None:
    histories = Histories(LENGTH)
    log: list[tuple[str, Event]] = []
    for user, time, search, items in rows:
        found = histories.before(user, time, search_id=search, targets=items)
        newest: dict[int, Event] = {}
        for _, event in reversed([(u, e) for u, e in log if u and u == user and e.time < time]):
            newest.setdefault(event.item, event)
        kept = list(newest.values())[: 2 * LENGTH]
        assert found == [e for e in kept if e.search_id != search and e.item not in items][:LENGTH]
        assert all(e.time < time and e.item not in items and e.search_id != search for e in found)
        events = [Event(time, item, 0, search) for item in items]
        histories.add(user, events)
        log += [(user, event) for event in events]
