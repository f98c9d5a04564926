"""The generated sample catalogue: what `make demo`, the tests and the benchmarks run on without data of one's own.

It is planted so that each part of the model has something to find that the others cannot:
* two titles in five leave the colour out and two in five the pattern: only the image shows them;
* queries and titles word one thing differently, so words alone fall short of judgments and clicks;
* every user prefers some looks (two colours, a pattern; seen only in pixels) and some words (two brands, a style),
  which shows in clicks on short queries, so a history tells what the query does not.
Nothing here is a claim about real users. The same arguments give the same bytes (with the same Pillow and pyarrow).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mrse_model.atomic_file import atomic_file
from mrse_model.errors import InputError
from mrse_model.sample.images import draw_image
from mrse_model.sample.words import BRANDS, COLOURS, EXTRAS, MARKETS, PATTERNS, STYLES, TYPES

COLOUR_NAMES, PATTERN_NAMES, STYLE_NAMES = list(COLOURS), list(PATTERNS), list(STYLES)
TYPE, COLOUR, PATTERN, STYLE, BRAND = range(5)  # an item's or a query's attributes; -1 is "not said"
PLAIN_SHARE = 0.34
WORDED = {COLOUR: 0.6, PATTERN: 0.6, STYLE: 0.85}  # how often a title says it
START = 1_767_225_600  # 2026-01-01 UTC
WEEKS = 8
LIST_LENGTH = 20
PER_GRADE = 12  # judged items a train query and grade, as a relevance log would sample
VALIDATION_SHARE = 0.15
# Relevance grade → chance of a click on rank 1; rank r has r ** -0.5 of it; preferences multiply.
CLICK = np.array([0.008, 0.06, 0.40])
COLOUR_TASTE, PATTERN_TASTE, BRAND_TASTE, STYLE_TASTE, NO_TASTE = 3.0, 1.7, 3.2, 1.5, 0.6
SPAM_USERS = 2  # bots that click everything, for the spam rule to find
SPAM_SEARCHES = 120


@dataclass(frozen=True)
class Sample:
    """The files that `write_sample` wrote, and what is in them."""

    items: Path
    searches: Path
    judgments: Path
    judgments_val: Path
    counts: dict[str, int]


@dataclass(frozen=True)
class Intent:
    """What a query asks for, and how it is worded."""

    asked: np.ndarray  # int64 [5]: TYPE, COLOUR, PATTERN, STYLE, BRAND; -1 for not said
    wordings: tuple[str, ...]


def write_sample(
    folder: str | Path, items: int = 2400, users: int = 400, searches: int = 6000, seed: int = 7
) -> Sample:
    """Writes items.parquet, searches.parquet, judgments.parquet and judgments_val.parquet into `folder`.

    judgments_val holds queries whose meaning no train query and no search has, judged completely for grades 1 and 2:
    2 all that the query says holds, 1 one thing (not the type) is missed, 0 (a sample) a clear miss.
    """
    if min(users, searches) < 1 or items < 2 * len(TYPES):  # two of each type: every bare type is a query
        raise InputError(f"a sample needs at least {2 * len(TYPES)} items, one user and one search")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    item_rng, query_rng, search_rng = (np.random.default_rng([seed, part]) for part in range(3))
    attributes = _attributes(items, item_rng)
    ids = [f"S{row:05d}" for row in range(items)]
    train, val = _intents(attributes, query_rng)
    tables = {
        "items": _items(ids, attributes, item_rng),
        "searches": _searches(ids, attributes, train, users, searches, search_rng),
        "judgments": _judgments(ids, attributes, train, query_rng, complete=False),
        "judgments_val": _judgments(ids, attributes, val, query_rng, complete=True),
    }
    paths = {name: folder / f"{name}.parquet" for name in tables}
    for name, table in tables.items():
        with atomic_file(paths[name]) as part:
            pq.write_table(table, part, row_group_size=1024 if name == "items" else 1 << 16)
    return Sample(**paths, counts={name: table.num_rows for name, table in tables.items()})


def _attributes(items: int, rng: np.random.Generator) -> np.ndarray:
    """int64 [items, 5]: types in turn, the rest drawn."""
    patterns = [PLAIN_SHARE] + [(1 - PLAIN_SHARE) / (len(PATTERNS) - 1)] * (len(PATTERNS) - 1)
    columns = [
        rng.permutation(np.arange(items) % len(TYPES)),
        rng.integers(len(COLOURS), size=items),
        rng.choice(len(PATTERNS), size=items, p=patterns),
        rng.integers(len(STYLES), size=items),
        rng.integers(len(BRANDS), size=items),
    ]
    return np.stack(columns, axis=1).astype(np.int64)


def _items(ids: list[str], attributes: np.ndarray, rng: np.random.Generator) -> pa.Table:
    rows = []
    for item_id, (kind, colour, pattern, style, brand) in zip(ids, attributes.tolist(), strict=True):
        item_type, style_word = TYPES[kind], _word(STYLES, style, rng, 0.5)
        colour_word, pattern_word = _word(COLOURS, colour, rng, 0.5), _word(PATTERNS, pattern, rng, 0.5)
        noun = str(rng.choice(item_type.titles))
        said = [
            BRANDS[brand],
            style_word.title() if rng.random() < WORDED[STYLE] else "",
            colour_word.title() if rng.random() < WORDED[COLOUR] else "",
            pattern_word.title() if rng.random() < WORDED[PATTERN] else "",
            noun,
            str(rng.choice(EXTRAS)),
        ]
        rows.append(
            {
                "item_id": item_id,
                "title": " ".join(word for word in said if word),
                "category": list(item_type.path),
                "brand": BRANDS[brand],
                "colour": COLOUR_NAMES[colour],
                "pattern": PATTERN_NAMES[pattern],
                "price": round(float(item_type.price * np.exp(rng.normal(0, 0.35))), 2),
                "market": str(rng.choice(MARKETS)),
                "in_stock": bool(rng.random() < 0.92),
                "description": f"{noun} for a {style_word} look, made by {BRANDS[brand]}.",
                "image": draw_image(item_type.name, COLOUR_NAMES[colour], PATTERN_NAMES[pattern], rng),
            }
        )
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("item_id", "title")),
            ("category", pa.list_(pa.string())),
            *((name, pa.string()) for name in ("brand", "colour", "pattern")),
            ("price", pa.float64()),
            ("market", pa.string()),
            ("in_stock", pa.bool_()),
            ("description", pa.string()),
            ("image", pa.binary()),
        ]
    )
    return pa.Table.from_pylist(rows, schema)


def _word(words: Mapping[str, tuple[str, ...]], value: int, rng: np.random.Generator, plain: float) -> str:
    """The plain word for an attribute value with chance `plain`, else any of its wordings."""
    wordings = list(words.values())[value]
    return wordings[0] if rng.random() < plain else str(rng.choice(wordings))


def _grades(attributes: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """int64 [items]: 2 all that is asked holds, 1 one thing but not the type is missed, else 0."""
    said = asked >= 0
    misses = (attributes[:, said] != asked[said]).sum(axis=1)
    right_type = attributes[:, TYPE] == asked[TYPE]
    return np.where(~right_type, 0, np.where(misses == 0, 2, np.where((misses == 1) & (said.sum() > 1), 1, 0)))


def _intents(attributes: np.ndarray, rng: np.random.Generator) -> tuple[list[Intent], list[Intent]]:
    """Train and validation intents: disjoint in meaning and each with at least two exact matches.

    Bare types are all in train; a share of what combines attributes is held out: validation asks for new combinations.
    """
    types, colours, patterns = range(len(TYPES)), range(len(COLOURS)), range(1, len(PATTERNS))
    styles, brands = range(len(STYLES)), range(len(BRANDS))
    bare = [(t, -1, -1, -1, -1) for t in types]
    combined = [(t, c, -1, -1, -1) for t in types for c in colours]
    combined += [(t, -1, p, -1, -1) for t in types for p in patterns]
    combined += [(t, -1, -1, s, -1) for t in types for s in styles]
    for rare, count in (
        ([(t, c, p, -1, -1) for t in types for c in colours for p in patterns], 420),
        ([(t, c, -1, s, -1) for t in types for c in colours for s in styles], 160),
        ([(t, -1, -1, -1, b) for t in types for b in brands], 100),
    ):
        combined += [rare[i] for i in rng.permutation(len(rare))[:count]]
    combined = [combined[i] for i in rng.permutation(len(combined))]
    held_out = round(VALIDATION_SHARE * len(combined))
    sides = []
    for meanings, wordings in ((bare + combined[held_out:], 2), (combined[:held_out], 1)):
        asked = [np.array(meaning, dtype=np.int64) for meaning in meanings]
        matched = [a for a in asked if np.count_nonzero(_grades(attributes, a) == 2) >= 2]
        sides.append([Intent(a, tuple(dict.fromkeys(_query(a, rng) for _ in range(wordings)))) for a in matched])
    train, val = sides
    return train, val


def _query(asked: np.ndarray, rng: np.random.Generator) -> str:
    kind, colour, pattern, style, brand = asked.tolist()
    words = [BRANDS[brand].lower()] if brand >= 0 else []
    words += [_word(STYLES, style, rng, 0.6)] if style >= 0 else []
    looks = [_word(COLOURS, colour, rng, 0.7)] if colour >= 0 else []
    looks += [_word(PATTERNS, pattern, rng, 0.5)] if pattern >= 0 else []
    return " ".join([*words, *rng.permutation(looks).tolist(), str(rng.choice(TYPES[kind].queries))])


def _judgments(
    ids: list[str], attributes: np.ndarray, intents: list[Intent], rng: np.random.Generator, *, complete: bool
) -> pa.Table:
    """Judged pairs. The grade-0 sample prefers what is nearly right: the type with two misses, then the same shelf."""
    shelf = np.array([TYPES.index(next(u for u in TYPES if u.path[:2] == t.path[:2])) for t in TYPES])
    queries, items, grades = [], [], []
    for intent in intents:
        grade = _grades(attributes, intent.asked)
        near = (attributes[:, TYPE] == intent.asked[TYPE]) | (shelf[attributes[:, TYPE]] == shelf[intent.asked[TYPE]])
        for query in intent.wordings:
            misses = np.flatnonzero(grade == 0)
            weight = np.where(near[misses], 20.0, 1.0)
            rows = [rng.choice(misses, size=min(PER_GRADE, len(misses)), replace=False, p=weight / weight.sum())]
            for g in (1, 2):
                found = np.flatnonzero(grade == g)
                rows.append(found if complete else rng.permutation(found)[:PER_GRADE])
            for row in np.concatenate(rows[::-1]).tolist():
                queries.append(query)
                items.append(ids[row])
                grades.append(int(grade[row]))
    return pa.table({"query": queries, "item_id": items, "grade": pa.array(grades, pa.int8())})


def _searches(
    ids: list[str], attributes: np.ndarray, intents: list[Intent], users: int, searches: int, rng: np.random.Generator
) -> pa.Table:
    """Sessions of a few searches on one type; lists with position bias; clicks by relevance × preference."""
    by_type: dict[int, list[list[Intent]]] = {t: [[], [], [], []] for t in range(len(TYPES))}
    for intent in intents:
        said = intent.asked >= 0
        looks = int(said[COLOUR]) + int(said[PATTERN])
        kind = 0 if said.sum() == 1 else 3 if said.sum() > 2 else 1 if looks else 2
        by_type[int(intent.asked[TYPE])][kind].append(intent)
    grades = {id(intent): _grades(attributes, intent.asked) for intent in intents}
    popularity = rng.normal(0, 0.8, len(ids))  # log; what the shop's old ranking saw
    preferences = [_Preference.draw(rng) for _ in range(users)]
    activity = rng.dirichlet(np.full(users, 1.5))
    rows: list[dict[str, object]] = []
    spammers = min(SPAM_USERS, searches // (4 * SPAM_SEARCHES))
    real = searches - spammers * SPAM_SEARCHES
    while len(rows) < real:
        user = int(rng.choice(users, p=activity))
        preference = preferences[user]
        now = START + rng.uniform(0, WEEKS * 7 * 86400)
        kinds = by_type[int(rng.choice(preference.types))]
        for _ in range(min(1 + int(rng.poisson(1.2)), real - len(rows))):
            choice = rng.choice(4, p=[0.5, 0.22, 0.16, 0.12])
            intent = preference.prefers(kinds[choice] or kinds[0], rng)
            shown = _shown(grades[id(intent)], popularity, rng)
            chance = CLICK[grades[id(intent)][shown]] * preference.factor(attributes[shown])
            chance *= (1 + np.arange(len(shown))) ** -0.5
            clicked = shown[rng.random(len(shown)) < np.minimum(chance, 0.95)]
            carted = clicked[
                rng.random(len(clicked)) < np.clip(0.12 * preference.factor(attributes[clicked]), 0.05, 0.6)
            ]
            ordered = carted[rng.random(len(carted)) < 0.5]
            lists = _lists(ids, shown=shown, clicked=clicked, carted=carted, ordered=ordered)
            query = str(rng.choice(intent.wordings))
            rows.append({"user_id": f"u{user:04d}", "timestamp": int(now), "query": query, **lists})
            now += rng.uniform(20, 400)
    for spammer in range(spammers):
        now = START + rng.uniform(0, WEEKS * 6 * 86400)
        for _ in range(SPAM_SEARCHES):
            intent = intents[int(rng.integers(len(intents)))]
            shown = _shown(grades[id(intent)], popularity, rng)
            lists = _lists(ids, shown=shown, clicked=shown, carted=shown[:0], ordered=shown[:0])
            user_id, query = f"bot{spammer}", intent.wordings[0]
            rows.append({"user_id": user_id, "timestamp": int(now), "query": query, **lists})
            now += rng.uniform(1, 4)
    rows.sort(key=lambda row: (row["timestamp"], row["user_id"]))
    texts, lists = pa.string(), pa.list_(pa.string())
    names = {"search_id": texts, "user_id": texts, "timestamp": pa.timestamp("s", "UTC"), "query": texts}
    names |= dict.fromkeys(("shown", "clicked", "carted", "ordered"), lists)
    return pa.Table.from_pylist(
        [{"search_id": f"q{i:06d}"} | row for i, row in enumerate(rows)], pa.schema(list(names.items()))
    )


def _shown(grade: np.ndarray, popularity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int64 [≤ 20]: rows of a result list of an old search engine: mostly matches, popular ones rather first."""
    exact, near, other = (rng.permutation(np.flatnonzero(grade == g)) for g in (2, 1, 0))
    rows = np.concatenate([exact[:15], near[: 18 - min(len(exact), 15)], other])[:LIST_LENGTH]
    return rows[np.argsort(-(0.6 * popularity[rows] + 0.5 * grade[rows] + rng.gumbel(size=len(rows))))]


def _lists(ids: list[str], **rows: np.ndarray) -> dict[str, list[str]]:
    return {name: [ids[row] for row in part] for name, part in rows.items()}


@dataclass(frozen=True)
class _Preference:
    """What a user likes: of looks two colours and a pattern, of words two brands and a style; and what types."""

    colours: np.ndarray
    pattern: int
    brands: np.ndarray
    style: int
    types: np.ndarray

    @staticmethod
    def draw(rng: np.random.Generator) -> _Preference:
        return _Preference(
            colours=rng.choice(len(COLOURS), 2, replace=False),
            pattern=int(rng.integers(1, len(PATTERNS))),
            brands=rng.choice(len(BRANDS), 2, replace=False),
            style=int(rng.integers(len(STYLES))),
            types=rng.choice(len(TYPES), 8, replace=False),
        )

    def factor(self, attributes: np.ndarray) -> np.ndarray:
        """float64 [n]: by how much the chance of a click on these items is multiplied."""
        colour = np.where(np.isin(attributes[:, COLOUR], self.colours), COLOUR_TASTE, NO_TASTE)
        pattern = np.where(attributes[:, PATTERN] == self.pattern, PATTERN_TASTE, 1.0)
        brand = np.where(np.isin(attributes[:, BRAND], self.brands), BRAND_TASTE, NO_TASTE)
        style = np.where(attributes[:, STYLE] == self.style, STYLE_TASTE, 1.0)
        return colour * pattern * brand * style

    def prefers(self, intents: list[Intent], rng: np.random.Generator) -> Intent:
        """One of the intents, those that name what the user likes three times as likely."""
        asked = np.stack([intent.asked for intent in intents])
        liked = np.isin(asked[:, COLOUR], self.colours) | (asked[:, PATTERN] == self.pattern)
        weight = np.where(liked, 3.0, 1.0)
        return intents[int(rng.choice(len(intents), p=weight / weight.sum()))]
