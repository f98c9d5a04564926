"""A choice per category: found where it is planted, and worth nothing where there is only noise."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from mrse_model.data.contract import Catalogue
from mrse_model.evaluation.queries import QuerySet
from mrse_model.studies.categories import OTHER, by_category, query_categories
from mrse_model.studies.measured import Measured, Values
from mrse_model.studies.registry import STUDIES

PATHS = [["Home", "Lamps"], ["Home", "Chairs"], ["Home"]]


def asked(n: int) -> tuple[QuerySet, Catalogue]:
    """n queries for lamps, n for chairs, 3 for the home at large."""
    wanted = [0] * n + [1] * n + [2] * 3
    rows = [np.array([item], np.int32) for item in wanted]
    grades = [np.array([2], np.int16) for _ in wanted]
    queries = QuerySet("q", [str(i) for i in range(len(wanted))], rows, grades, 2, np.ones(len(wanted)))
    names = ["lamp", "chair", "home"]
    return queries, Catalogue(Path("items"), names, names, PATHS, {name: row for row, name in enumerate(names)})


def gain(measured: dict[str, Measured], queries: QuerySet, catalogue: Catalogue) -> tuple[float, float]:
    found = by_category(STUDIES["balance"], measured, "data", queries, catalogue)
    low, high = re.search(r"\[([+-][\d.]+), ([+-][\d.]+)\]", found.remarks[0]).groups()
    return float(low), float(high)


def test_a_small_category_has_no_row_of_its_own() -> None:
    names = query_categories(*asked(30))
    assert names == ["Lamps"] * 30 + ["Chairs"] * 30 + [OTHER] * 3


def test_a_planted_best_is_found_and_noise_is_not() -> None:
    queries, catalogue = asked(100)
    rng = np.random.default_rng(0)
    lamps = np.array([name == "Lamps" for name in query_categories(queries, catalogue)])
    noise = {v.name: rng.normal(0.5, 0.1, len(queries)) for v in STUDIES["balance"].variants}
    planted = dict(noise)
    planted["β 0"] = noise["β 0"] + np.where(lamps, 0.3, -0.3)
    planted["β 60"] = noise["β 60"] + np.where(lamps, -0.3, 0.3)

    def measured(values: dict[str, np.ndarray]) -> dict[str, Measured]:
        return {name: Measured({"nDCG@10": Values("queries", v)}) for name, v in values.items()}

    low, _ = gain(measured(planted), queries, catalogue)
    assert low > 0.1
    low, high = gain(measured(noise), queries, catalogue)
    assert low <= 0 <= high
    rows = by_category(STUDIES["balance"], measured(planted), "data", queries, catalogue).rows
    best = {row.name.split(" (")[0]: row.numbers["best β/α"] for row in rows}
    assert best["Lamps"] == 0.0 and best["Chairs"] == 60.0
