"""Histories and behaviour vectors against the formulas written out."""

from __future__ import annotations

import numpy as np
import pytest

from mrse_model.errors import InputError
from mrse_model.serving.manifest import Manifest
from retrieval.history.behaviour import (
    TEMPERATURE,
    ClickedItems,
    Event,
    image_queue,
    item_queue,
    ranked_events,
    tensor_hex,
    tensor_values,
)

RNG = np.random.default_rng(5)


def unit(n: int) -> np.ndarray:
    vectors = RNG.normal(size=(n, 128)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clicked(n: int, weight: list[float]) -> ClickedItems:
    image = unit(n)
    image[0] = np.nan
    ids = [f"i{k}" for k in range(n)]
    return ClickedItems(ids, unit(n), image, unit(n), np.array(weight, np.float32), np.zeros(n, bool))


def test_the_item_queue_is_attention_of_the_query_over_query_and_clicks() -> None:
    [query], items = unit(1), clicked(3, [1.0, 0.5, 2.0])
    rows = [(query, 1.0), *zip(items.embedding, [1.0, 0.5, 2.0], strict=True)]
    shares = [np.exp(float(query @ row) / TEMPERATURE) * weight for row, weight in rows]
    expected = sum(share * row for share, (row, _) in zip(shares, rows, strict=True)) / sum(shares)
    np.testing.assert_allclose(item_queue(query, items), expected / np.linalg.norm(expected), atol=1e-6)


def test_the_image_queue_mixes_images_only_and_leaves_out_items_without_one() -> None:
    [query], items = unit(1), clicked(3, [1.0, 1.0, 1.0])
    shares = np.exp(items.embedding[1:] @ query / TEMPERATURE)
    expected = shares @ items.image_embedding[1:]
    np.testing.assert_allclose(image_queue(query, items), expected / np.linalg.norm(expected), atol=1e-6)


def test_no_clicks_make_no_queues() -> None:
    nobody = ClickedItems(
        [], *(np.empty((0, 128), np.float32) for _ in range(3)), np.empty(0, np.float32), np.empty(0, bool)
    )
    [query] = unit(1)
    assert item_queue(query, nobody) is None and image_queue(query, nobody) is None and nobody.history() is None


DAY = 86400.0


@pytest.fixture(scope="module")
def manifest(package) -> Manifest:
    return Manifest.load(package / "models")


def test_events_are_newest_first_one_an_item_and_weighted_by_their_age_now(manifest) -> None:
    events = [Event(f"i{n}", "click", n * DAY) for n in range(30)]
    events += [Event("i5", "order", 29 * DAY), Event("i29", "click", 0.0)]
    ranked = ranked_events(events, manifest, now=59 * DAY)
    assert [e.item_id for e, _ in ranked[:3]] == ["i29", "i5", "i28"] and len(ranked) == 30
    weight = {event.item_id: w for event, w in ranked}
    assert weight["i5"] == pytest.approx(1.5) and weight["i29"] == pytest.approx(0.5), "a half-life ago"
    assert weight["i28"] == pytest.approx(0.5 * 0.5 ** (1 / 30))


def test_who_was_here_a_year_ago_has_no_history(manifest) -> None:
    events = [Event("old", "order", 0.0), Event("new", "click", 300 * DAY)]
    assert [e.item_id for e, _ in ranked_events(events, manifest, now=365 * DAY)] == ["new"]
    assert [w for _, w in ranked_events([Event("soon", "click", 9e9)], manifest, now=0)] == [1.0], "clocks differ"


def test_what_was_clicked_for_this_query_counts_before_what_is_newer(manifest) -> None:
    events = [Event("a", "click", 10.0), Event("b", "click", 1.0, "red dress"), Event("c", "order", 5.0, "boots")]
    assert [e.item_id for e, _ in ranked_events(events, manifest, 20.0, "red dress")] == ["b", "a", "c"]
    assert [e.item_id for e, _ in ranked_events(events, manifest, 20.0)] == ["a", "c", "b"]


def test_the_queues_start_from_what_was_clicked_for_this_query_or_from_all() -> None:
    items = clicked(3, [1.0, 1.0, 1.0])
    assert items.seeds() is items
    items.for_query[1] = True
    seeds = items.seeds()
    assert seeds.ids == ["i1"]
    np.testing.assert_array_equal(seeds.embedding, items.embedding[1:2])


def test_a_kind_that_the_model_does_not_know_is_refused(manifest) -> None:
    with pytest.raises(InputError, match="unknown kind of event: 'view'"):
        ranked_events([Event("a", "view", 1.0)], manifest, 2.0)


def test_tensors_are_read_in_every_form_and_sent_as_hex() -> None:
    [vector] = unit(1)
    as_bfloat = (vector.view(np.uint32) >> 16).astype(">u2").tobytes().hex()
    np.testing.assert_allclose(tensor_values(as_bfloat, 128), vector, rtol=0.01)
    for form in (
        tensor_hex(vector),
        vector.tolist(),
        {"values": vector.tolist()},
        vector.astype(">f8").tobytes().hex(),
    ):
        np.testing.assert_array_equal(tensor_values(form, 128), vector)
    assert np.isnan(tensor_values(None, 128)).all()


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
