"""Mined hard negatives: for queries without judged ones, near, but neither known to be right nor as near as those."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from mrse_model.training import hard_negatives as mining
from mrse_model.training.frozen_vectors import FrozenVectors
from mrse_model.training.hard_negatives import mine_hard_negatives
from mrse_model.training.teacher.taught import Taught
from tests.helpers.small_stages import HARD, KNOWN, small_fusion


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FrozenVectors:
    monkeypatch.setattr(mining, "NEAREST", 4)  # of five items
    return small_fusion(tmp_path).vectors


def test_only_queries_without_judged_ones_get_some_that_are_not_known(
    vectors: FrozenVectors, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mining, "MARGIN", 100.0)
    # A cosine below 0 times the margin would be far below it: queries that point at their positive.
    monkeypatch.setattr(vectors.model.query, "ft_att", lambda ngrams, ids, mask: positives(vectors, ids))
    mined = mine_hard_negatives(vectors, Console(width=200)).hard
    for query, judged in enumerate(HARD):
        if judged:
            assert mined[query].tolist() == judged
        else:
            assert len(mined[query]) and not set(mined[query].tolist()) & set(KNOWN[query])
    assert "mined for 2 of 2 queries that have no judged ones" in capsys.readouterr().out


def test_what_scores_nearly_as_high_as_the_positive_may_be_right(
    vectors: FrozenVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors.model.query, "ft_att", lambda ngrams, ids, mask: positives(vectors, ids))
    items = torch.nn.functional.normalize(item_vectors(vectors), dim=-1)
    mined = mine_hard_negatives(vectors, Console(quiet=True)).hard
    for query in (1, 4):
        scores = items @ items[KNOWN[query][0]]
        assert all(scores[item] < mining.MARGIN for item in mined[query].tolist())
        left = set(range(5)) - set(mined[query].tolist()) - set(KNOWN[query])
        nearest = set(scores.topk(4).indices.tolist())
        assert all(scores[item] >= mining.MARGIN for item in left & nearest)


def test_what_reads_like_a_known_positive_is_not_mined(vectors: FrozenVectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "MARGIN", 100.0)
    monkeypatch.setattr(vectors.model.query, "ft_att", lambda ngrams, ids, mask: positives(vectors, ids))
    before = mine_hard_negatives(vectors, Console(quiet=True)).hard[1]
    vectors.corpus.same_text = np.array([0, 1, 2, 1, 4])  # item 3 reads like item 1, which query 1 leads to
    assert 3 in before and mine_hard_negatives(vectors, Console(quiet=True)).hard[1].tolist() == [
        item for item in before if item != 3
    ]


@pytest.mark.parametrize("taught", [False, True])
def test_pseudo_queries_beside_real_ones_get_some_with_a_teacher(
    vectors: FrozenVectors, monkeypatch: pytest.MonkeyPatch, taught: bool
) -> None:
    monkeypatch.setattr(mining, "MARGIN", 100.0)
    corpus, lacking = vectors.corpus, [q for q, judged in enumerate(HARD) if not judged]
    real = np.array([q != lacking[-1] for q in range(len(HARD))])
    corpus.queries = replace(corpus.queries, real=real)
    corpus.taught = Taught(np.zeros((len(HARD), 2), np.float16), np.zeros((5, 2), np.float16), 0.5) if taught else None
    asked = lacking if taught else lacking[:-1]
    monkeypatch.setattr(vectors.model.query, "ft_att", lambda ngrams, ids, mask: positives(vectors, ids, asked))
    mined = mine_hard_negatives(vectors, Console(quiet=True)).hard
    assert [q for q in lacking if len(mined[q])] == asked


def item_vectors(vectors: FrozenVectors) -> torch.Tensor:
    ids = torch.from_numpy(vectors.corpus.item_tokens.astype("int64"))
    with torch.no_grad():
        return vectors.model.item.ft_att(vectors.model.ngrams, ids, (ids != 0).long())


def positives(vectors: FrozenVectors, ids: torch.Tensor, queries: Sequence[int] = ()) -> torch.Tensor:
    """In place of the queries' FtAtt: the vector of each one's first positive."""
    queries = queries or [q for q, judged in enumerate(HARD) if not judged]
    assert len(ids) == len(queries)
    return item_vectors(vectors)[[KNOWN[q][0] for q in queries]]
