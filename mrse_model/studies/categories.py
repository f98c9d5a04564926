"""Does the best setting depend on the category? One row a category, one column a variant, and the gain of choosing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mrse_model.data.contract import Catalogue
from mrse_model.evaluation.bootstrap import Bootstrap
from mrse_model.evaluation.queries import QuerySet
from mrse_model.studies.measured import Measured
from mrse_model.studies.results import Results, Row, difference, tabulate
from mrse_model.studies.study import Study

LEVEL, MIN_QUERIES = 1, 20  # of the category path; queries that a category needs for a row of its own
OTHER = "other categories"


def query_categories(queries: QuerySet, catalogue: Catalogue) -> list[str]:
    """The most frequent category of each query's positives, by the second level of the path (or the last it has)."""
    out = []
    for rows, grades in zip(queries.items, queries.grades, strict=True):
        paths = [catalogue.categories[row] for row in rows[grades >= queries.positive]]
        names = Counter(path[min(LEVEL, len(path) - 1)] for path in paths if path)
        out.append(min(names, key=lambda n: (-names[n], n)) if names else OTHER)
    sizes = Counter(out)
    return [name if sizes[name] >= MIN_QUERIES else OTHER for name in out]


def by_category(
    study: Study, measured: Mapping[str, Measured], data: str, queries: QuerySet, catalogue: Catalogue
) -> Results:
    """The first column of the study by category, and by cross-fitting what a choice per category gains."""
    whole = tabulate(study, measured, data)
    measure = study.columns[0]
    variants = [v for v in study.variants if v.name in measured]
    values = np.stack([measured[v.name].values[measure].values for v in variants])  # [variants, queries]
    names = np.array(query_categories(queries, catalogue))
    rows = []
    for name, count in sorted(Counter(names.tolist()).items(), key=lambda pair: (pair[0] == OTHER, -pair[1])):
        chosen = names == name
        means = values[:, chosen].mean(1)
        bootstrap = Bootstrap(int(chosen.sum()))
        best = variants[int(means.argmax())]
        estimates = {v.name: bootstrap.estimate(row[chosen]) for v, row in zip(variants, values, strict=True)}
        numbers = {f"best {study.axis}": best.x} if best.x is not None else {}
        rows.append(Row(f"{name} ({count})", None, estimates, numbers=numbers))
    columns = (*(v.name for v in variants), f"best {study.axis}")
    remark = f"{measure} by category (queries in brackets). " + _gain(values, names)
    return replace(whole, columns=columns, rows=rows, remarks=(remark,))


def _gain(values: np.ndarray, names: np.ndarray) -> str:
    """The gain of the best variant a category over the best for all, each chosen on the half that is not measured."""
    half = np.random.default_rng(0).permutation(len(names)) % 2
    own, common = np.zeros(len(names)), np.zeros(len(names))
    for side in (0, 1):
        learn, held_out = half != side, half == side
        best = int(values[:, learn].mean(1).argmax())
        common[held_out] = values[best, held_out]
        for name in set(names):
            mine = learn & (names == name)
            choice = int(values[:, mine].mean(1).argmax()) if mine.any() else best
            own[held_out & (names == name)] = values[choice, held_out & (names == name)]
    c = Bootstrap(len(names)).compare(own, common)
    return (
        f"Chosen per category instead of once for all: {difference(c)}, p {c.p:.4f} "
        "(chosen on one half of the queries, measured on the other)."
    )
