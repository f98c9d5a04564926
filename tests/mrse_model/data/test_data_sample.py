"""The sample catalogue obeys the contract and holds what it promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from mrse_model.data.contract import Judgments, SearchesFile, read_catalogue, read_judgments
from mrse_model.data.examples import write_examples
from mrse_model.data.images import decode_image
from mrse_model.errors import InputError
from mrse_model.sample.catalogue import Sample, write_sample
from mrse_model.sample.images import SHAPES, TONES, draw_image
from mrse_model.sample.words import COLOURS, PATTERNS, TYPES


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return write_sample(tmp_path_factory.mktemp("sample"), items=480, users=60, searches=1200)


def judged(sample: Sample) -> tuple[Judgments, Judgments]:
    catalogue = read_catalogue(sample.items)
    return read_judgments(sample.judgments, catalogue), read_judgments(sample.judgments_val, catalogue)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    a = write_sample(tmp_path / "a", items=60, users=5, searches=40, seed=3)
    b = write_sample(tmp_path / "b", items=60, users=5, searches=40, seed=3)
    c = write_sample(tmp_path / "c", items=60, users=5, searches=40, seed=4)
    for name in ("items", "searches", "judgments", "judgments_val"):
        assert getattr(a, name).read_bytes() == getattr(b, name).read_bytes() != getattr(c, name).read_bytes()
    assert not list(tmp_path.glob("*/*.part"))


def test_validation_queries_are_new_and_judged_completely(sample: Sample) -> None:
    train, val = judged(sample)
    searched = {q for b in SearchesFile(sample.searches).batches() for q in b.queries}
    assert not set(val.queries) & (set(train.queries) | searched) and len(val.queries) > 40
    colours, patterns = (np.array(pq.read_table(sample.items)[c].to_pylist()) for c in ("colour", "pattern"))
    types = np.array([path[-1] for path in pq.read_table(sample.items)["category"].to_pylist()])
    checked = 0
    for query, items, grades in val.groups():
        said = [t.path[-1] for t in TYPES if any(query.endswith(w) for w in t.queries)]
        colour = [c for c, words in COLOURS.items() if words[0] in query.split()]
        pattern = [p for p, words in PATTERNS.items() if any(w in query for w in words)]
        if len(said) != 1 or len(colour) != 1 or len(query.split()) > 2 + len(pattern) or pattern:
            continue
        exact = np.flatnonzero((types == said[0]) & (colours == colour[0]))
        near = np.flatnonzero((types == said[0]) & (colours != colour[0]))
        assert set(items[grades == 2]) == set(exact) and set(items[grades == 1]) == set(near)
        assert set(items[grades == 0]) <= set(np.flatnonzero(types != said[0]))
        checked += 1
    assert checked >= 5 and patterns.size


def test_titles_leave_out_what_the_image_shows(sample: Sample) -> None:
    table = pq.read_table(sample.items, columns=["title", "colour", "pattern"]).to_pylist()
    colour = np.mean([not any(w in r["title"].lower() for w in COLOURS[r["colour"]]) for r in table])
    pattern = np.mean([not any(w in r["title"].lower() for w in PATTERNS[r["pattern"]]) for r in table])
    assert 0.3 < colour < 0.5 and 0.3 < pattern < 0.5


def test_colour_and_pattern_show_in_the_pixels() -> None:
    rng = np.random.default_rng(0)
    for colour, tone in TONES.items():
        image = np.asarray(decode_image(draw_image("cushion", colour, "plain", rng)), float)[40:56, 40:56]
        nearest = min(TONES, key=lambda name: np.abs(image.mean((0, 1)) - TONES[name]).sum())
        assert nearest == colour and np.abs(image.mean((0, 1)) - tone).max() < 60
        marked = [draw_image("cushion", colour, p, rng) for p in PATTERNS if p != "plain"]
        spread = [np.asarray(decode_image(b), float)[30:66, 30:66].std((0, 1)).max() for b in marked]
        assert min(spread) > 2 * image.std((0, 1)).max() + 5
    assert {t.name for t in TYPES} == set(SHAPES) and set(TONES) == set(COLOURS)


def test_users_click_by_taste(sample: Sample) -> None:
    """Two users' clicks differ in colour by far more than chance: the preference that a history can tell."""
    colour = dict(zip(*(pq.read_table(sample.items)[c].to_pylist() for c in ("item_id", "colour")), strict=True))
    shares = []
    for user in range(60):
        clicks = [
            colour[item]
            for batch in SearchesFile(sample.searches).batches()
            for who, clicked in zip(batch.user_ids, batch.clicked, strict=True)
            if who == f"u{user:04d}"
            for item in clicked
        ]
        if len(clicks) >= 20:
            counts = sorted((clicks.count(c) for c in COLOURS), reverse=True)
            shares.append(sum(counts[:2]) / len(clicks))
    assert np.mean(shares) > 0.4  # two of ten colours; the two most frequent by chance have about 0.3


def test_it_trains_from_the_sample(sample: Sample, tmp_path: Path) -> None:
    catalogue = read_catalogue(sample.items)
    train, _ = judged(sample)
    summary = write_examples(tmp_path / "x", catalogue, searches=SearchesFile(sample.searches), judgments=train)
    assert summary.examples["click"] > 1000 and min(summary.examples["cart"], summary.examples["order"]) > 50
    assert summary.spam_users == 2 and summary.validation_searches > 50
    assert summary.empty_history_share is not None and summary.empty_history_share < 0.3


def test_too_small_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 48 items"):
        write_sample(tmp_path, items=3)
