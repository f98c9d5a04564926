"""Selections of services.xml: which puts are ignored, what garbage collection removes, what it leaves alone."""

from __future__ import annotations

import time

import pytest

from local_vespa.documents.retention import Retention
from local_vespa.errors import DeployError
from local_vespa.package.services import DocumentType, Services

KEEP = "item.expires == null or item.expires > now()"


def retention(selection: str = KEEP, every: float = 60) -> Retention:
    return Retention(Services("items", (DocumentType("item", selection), DocumentType("shopper")), collect_every=every))


@pytest.mark.parametrize(
    ("fields", "kept"),
    [({}, True), ({"expires": time.time() + 1e6}, True), ({"expires": time.time() - 1e6}, False)],
)
def test_an_expired_document_is_neither_put_nor_kept(fields: dict, kept: bool) -> None:
    rules = retention()
    assert rules.accepts("item", "id:item:item::a", fields) is kept
    assert rules.expired("item", "id:item:item::a", fields) is not kept


def test_a_selection_without_an_answer_drops_the_put_and_keeps_the_document() -> None:
    rules = retention("item.expires > now()")
    assert not rules.accepts("item", "id:item:item::a", {})
    assert not rules.expired("item", "id:item:item::a", {})


def test_types_without_a_selection_and_clusters_without_collection() -> None:
    assert retention().accepts("shopper", "id:item:shopper::u", {}) and retention().collects == ("item",)
    assert retention(every=0).collects == ()


def test_a_selection_that_is_none_refuses_the_package() -> None:
    with pytest.raises(DeployError, match=r"services\.xml"):
        retention("item.expires >")
