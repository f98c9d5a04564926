"""A planted preference is found, and no preference is not."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrse_model.errors import InputError
from mrse_model.evaluation.personal import clicked_recall, compare_personal, personal_searches

COLUMNS = {
    "query": ["a", "b", "c", "d"],
    "user_id": ["u", "u", "", "v"],
    "target_items": [[1], [2, 3], [1], [4]],
    "kinds": [[0], [0, 0], [0], [0]],
    "history_items": [[7], [], [5], [8, 9]],
    "history_kind": [[0], [], [0], [0, 2]],
    "history_age": [[10.0], [], [5.0], [1.0, 2.0]],
}


def test_only_searches_of_known_people_with_a_history(tmp_path):
    pq.write_table(pa.table(COLUMNS), tmp_path / "validation.parquet")
    found = personal_searches(tmp_path / "validation.parquet")
    assert (found.queries, found.users, found.history) == (["a", "d"], ["u", "v"], [[7], [8, 9]])
    none = {**COLUMNS, "history_items": [[]] * 4}
    pq.write_table(pa.table(none), tmp_path / "none.parquet")
    with pytest.raises(InputError, match="no search with a click is by a user with earlier clicks"):
        personal_searches(tmp_path / "none.parquet")


def test_recall_of_the_clicked():
    items = np.eye(4, dtype=np.float32)
    queries = np.array([[4, 3, 2, 1], [1, 2, 3, 4]], np.float32)
    assert clicked_recall(queries, items, [[0, 3], [3]], cut=2).tolist() == [0.5, 1]


def test_lift_over_users(tmp_path):
    n = 200
    pq.write_table(
        pa.table(
            {
                "query": ["q"] * n,
                "user_id": [f"u{i % 50}" for i in range(n)],
                "target_items": [[i] for i in range(n)],
                "history_items": [[0]] * n,
                "history_kind": [[0]] * n,
                "history_age": [[1.0]] * n,
            }
        ),
        tmp_path / "v.parquet",
    )
    searches = personal_searches(tmp_path / "v.parquet")
    rng = np.random.default_rng(0)
    items = rng.normal(size=(n, 24)).astype(np.float32)
    towards = items + rng.normal(size=items.shape).astype(np.float32)
    away = items + 3 * rng.normal(size=items.shape).astype(np.float32)
    result = compare_personal(searches, items, towards, away)
    assert (result.searches, result.users) == (n, 50)
    assert result.lift.clear and result.lift.relative_low > 0.1
    assert "50 users" in result.markdown()
    assert not compare_personal(searches, items, away, away).lift.clear
