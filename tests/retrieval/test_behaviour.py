"""Histories and behaviour vectors against the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest

from mrse_model.serving.manifest import Manifest
from retrieval.behaviour import ClickedItems, Event, image_queue, item_queue, last_events

RNG = np.random.default_rng(5)


def unit(n: int) -> np.ndarray:
    vectors = RNG.normal(size=(n, 128)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clicked(n: int, weight: list[float]) -> ClickedItems:
    image = unit(n)
    image[0] = np.nan
    return ClickedItems([f"i{k}" for k in range(n)], unit(n), image, unit(n), np.array(weight, np.float32))


def test_the_item_queue_is_attention_of_the_query_over_query_and_clicks() -> None:
    [query], items = unit(1), clicked(3, [1.0, 0.5, 2.0])
    rows = [(query, 1.0), *zip(items.embedding, [1.0, 0.5, 2.0], strict=True)]
    shares = [np.exp(float(query @ row)) * weight for row, weight in rows]
    expected = sum(share * row for share, (row, _) in zip(shares, rows, strict=True)) / sum(shares)
    np.testing.assert_allclose(item_queue(query, items), expected / np.linalg.norm(expected), atol=1e-6)


def test_the_image_queue_mixes_images_only_and_leaves_out_items_without_one() -> None:
    [query], items = unit(1), clicked(3, [1.0, 1.0, 1.0])
    shares = np.exp(items.embedding[1:] @ query)
    expected = shares @ items.image_embedding[1:]
    np.testing.assert_allclose(image_queue(query, items), expected / np.linalg.norm(expected), atol=1e-6)


def test_no_clicks_make_no_queues() -> None:
    nobody = ClickedItems([], *(np.empty((0, 128), np.float32) for _ in range(3)), np.empty(0, np.float32))
    [query] = unit(1)
    assert item_queue(query, nobody) is None and image_queue(query, nobody) is None and nobody.history() is None


def test_the_history_is_newest_first_one_event_an_item_and_weighted(package) -> None:
    manifest = Manifest.load(package / "models")
    day = 86400.0
    events = [Event(f"i{n}", "click", n * day) for n in range(30)]
    events += [Event("i5", "order", 29 * day), Event("i29", "click", 0.0)]
    newest = last_events(events, manifest)
    assert len(newest) == manifest.history_length == 20
    assert {newest[0][0].item_id, newest[1][0].item_id} == {"i5", "i29"}
    weight = {event.item_id: w for event, w in newest}
    assert weight["i5"] == pytest.approx(3.0) and weight["i29"] == pytest.approx(1.0)
    assert weight["i28"] == pytest.approx(0.5 ** (1 / 30))


def test_the_tower_inputs_are_padded_with_zeros() -> None:
    inputs = clicked(2, [1.0, 0.5]).tower_inputs(20)
    assert {k: v.shape for k, v in inputs.items()} == {
        "history_text": (1, 20, 128),
        "history_image": (1, 20, 128),
        "history_weight": (1, 20),
    }
    assert inputs["history_weight"][0, :3].tolist() == [1.0, 0.5, 0.0]
    assert not inputs["history_image"][0, 0].any() and inputs["history_image"][0, 1].any()
    assert not inputs["history_text"][0, 2:].any()
