"""Items into Vespa: what arrives, what a second run sends, what a kill leaves, and that bad input feeds nothing."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vespa.application import Vespa

from feeders.feed import feed_items, feed_updates, reasons_file, send_all
from feeders.image_features import ExtractedFeatures, NoImages
from feeders.index.deployed import check_metrics
from feeders.index.verify import verify
from feeders.inputs import open_items
from feeders.item_queries import ItemQueries, item_queries_for
from feeders.items import ItemSource
from feeders.operations import Operation
from feeders.report import Report
from feeders.shards.catalogue import encode_catalogue
from feeders.shoppers import ShopperSource, feed_shoppers
from feeders.transport import Policy
from feeders.updates import UpdateSource
from local_vespa.testing import deploy, running_engine
from mrse_model.data.contract import ItemsFile, SearchesFile, read_catalogue
from mrse_model.data.examples import ExampleSettings, write_examples
from mrse_model.data.ids import Ids
from mrse_model.errors import InputError
from mrse_model.evaluation.popularity import Popularity
from mrse_model.serving.exported_model import ExportedModel
from tests.helpers.make_models import FEATURES
from tests.helpers.recording_vespa import RecordingVespa
from vespa_package.checks.all import validate
from vespa_package.fields import DocumentType
from vespa_package.variants import build_variant

VARIANTS = Path(__file__).parents[2] / "variants"


def source_of(file: Path, package: Path, features: Path | None = None, **options) -> ItemSource:
    model = ExportedModel.load(package / "models")
    images = ExtractedFeatures(features, model.manifest) if features else NoImages()
    return ItemSource.open(file, DocumentType.load(package), model, images, **options)


def feed(
    file: Path,
    package: Path,
    vespa: RecordingVespa,
    features: Path | None = None,
    item_queries: ItemQueries | None = None,
    **options,
) -> Report:
    source = source_of(file, package, features, item_queries=item_queries)
    return feed_items(Vespa(vespa.url), source, file.with_suffix(".sqlite"), **options)


def decoded(cells: str) -> np.ndarray:
    bits = np.frombuffer(bytes.fromhex(cells), ">u2").astype(np.uint32) << 16
    return bits.view(np.float32)


@pytest.mark.parametrize("variant", ["", "int8", "compact"])
def test_the_deployed_metrics_are_those_of_the_package(package, items, features, tmp_path, variant) -> None:
    app = build_variant(package, VARIANTS, variant, tmp_path / "app") if variant else package
    with running_engine(tmp_path / "data") as url:
        deploy(url, app)
        source = source_of(items, app, features)
        assert not check_metrics(Vespa(url), source.doctype, source.model)
        assert feed_items(Vespa(url), source, tmp_path / "s.sqlite").ok == 12
        assert check_metrics(Vespa(url), source.doctype, source.model), "all fields show theirs"


@pytest.mark.parametrize(
    ("variant", "field", "metric"),
    [
        *(("", "embedding", metric) for metric in ("angular", "euclidean", "dotproduct")),
        ("", "image_embedding", "angular"),
        *(("int8", "embedding_int8", metric) for metric in ("angular", "euclidean", "dotproduct", "hamming")),
        ("int8", "image_embedding_int8", "angular"),
        *(("compact", "embedding_bits", metric) for metric in ("angular", "euclidean")),
    ],
)
def test_another_distance_metric_is_refused(package, items, features, tmp_path, variant, field, metric) -> None:
    package = build_variant(package, VARIANTS, variant, tmp_path / "package") if variant else package
    app = shutil.copytree(package, tmp_path / "app")
    schema = app / "schemas" / "item.sd"
    before, named, after = schema.read_text().partition(f"field {field} type")
    wanted = "hamming" if field.endswith("bits") else "prenormalized-angular"
    schema.write_text(before + named + after.replace(f"distance-metric: {wanted}", f"distance-metric: {metric}", 1))
    refused = f"{field}: the distance metric deployed at .* is not {wanted} .*distance-metric: {wanted}"
    with running_engine(tmp_path / "data") as url:
        deploy(url, app)
        report = Report()
        with pytest.raises(InputError, match=refused):  # it shows by the first documents of an empty index
            feed_items(Vespa(url), source_of(items, package, features), tmp_path / "a.sqlite", report=report)
        assert report.ok == 12
        with pytest.raises(InputError, match=refused):
            source = source_of(items, package, features)
            feed_items(Vespa(url), source, tmp_path / "b.sqlite", report=(report := Report()))
        assert report.ok == 0


@pytest.mark.parametrize(("variant", "field"), [("", "image_embedding"), ("int8", "embedding_int8")])
def test_other_cells_than_the_package_s_are_refused(package, items, features, tmp_path, variant, field) -> None:
    package = build_variant(package, VARIANTS, variant, tmp_path / "package") if variant else package
    app = shutil.copytree(package, tmp_path / "app")
    schema = app / "schemas" / "item.sd"
    before, named, after = schema.read_text().partition(f"field {field} type tensor<")
    schema.write_text(before + named + "float>" + after.split(">", 1)[1])
    with running_engine(tmp_path / "data") as url:
        deploy(url, app)
        with pytest.raises(InputError, match=rf"{field}: the schema deployed at .* has float cells"):
            feed_items(Vespa(url), source_of(items, package, features), tmp_path / "s.sqlite")


def test_documents_hold_the_fields_and_the_vectors(vespa, package, items, features) -> None:
    report = feed(items, package, vespa, features)
    assert (report.ok, report.failed, report.unchanged) == (12, 0, 0)
    assert set(vespa.documents) == {f"id:item:item::i{n}" for n in range(12)}
    document = vespa.documents["id:item:item::i1"]
    assert document["price"] == 1.0 and document["in_stock"] is False and document["category"] == ["women", "dress"]
    assert document["model_version"] == "mrse-0123456789ab"
    model = ExportedModel.load(package / "models")
    vectors = model.item_vectors(["red dress 1"], [["women", "dress"]], feature_of(features, "i1"))
    for name in ("embedding", "image_embedding", "text_feature"):
        np.testing.assert_allclose(decoded(document[name]["values"]), getattr(vectors, name)[0], atol=2**-8)
    assert "image_embedding" not in vespa.documents["id:item:item::i0"], "an item without an image has no image vector"


def test_vectors_are_read_from_the_column_that_is_named(package, items, features, tmp_path) -> None:
    manifest = ExportedModel.load(package / "models").manifest
    table = pq.read_table(features)
    renamed = table.rename_columns(["item_id", "vector", "image_digest"]).replace_schema_metadata(table.schema.metadata)
    pq.write_table(renamed, tmp_path / "own.parquet")
    theirs = joined(ExtractedFeatures(tmp_path / "own.parquet", manifest, column="vector"), items)
    ours = joined(ExtractedFeatures(features, manifest), items)
    assert len(ours) == 12
    for item_id, vector in ours.items():
        assert np.array_equal(vector, theirs[item_id], equal_nan=True)
        assert np.array_equal(vector[None], feature_of(features, item_id), equal_nan=True)
    with pytest.raises(InputError, match=r"field feature: the column is missing.*--feature-column"):
        ExtractedFeatures(tmp_path / "own.parquet", manifest)


def joined(features: ExtractedFeatures, items: Path, size: int = 5) -> dict[str, np.ndarray]:
    """The feature of each item, in the order in which they come."""
    file, ids = ItemsFile(items), Ids()
    for batch in file.batches():
        assert not list(ids.add(list(enumerate(batch.ids, start=batch.first_row))))
    features.join(file, ids)
    return {
        item_id: row
        for batch in features.batches(file, size, ["price"])
        for item_id, row in zip(batch.ids, features.features(batch, list(range(len(batch)))), strict=True)
    }


def test_features_in_the_items_order_and_in_another_are_the_same(package, items, features, tmp_path) -> None:
    manifest = ExportedModel.load(package / "models").manifest
    table = pq.read_table(features)
    pq.write_table(table.take(list(range(11, -1, -1))), tmp_path / "ordered.parquet")
    pq.write_table(table.slice(2, 7), tmp_path / "some.parquet")
    whole = joined(ExtractedFeatures(features, manifest), items)
    ordered = joined(ExtractedFeatures(tmp_path / "ordered.parquet", manifest), items)
    some = joined(ExtractedFeatures(tmp_path / "some.parquet", manifest), items)
    assert list(ordered) == [f"i{n}" for n in range(12)] and list(whole) == list(reversed(ordered))
    assert all(np.array_equal(whole[i], ordered[i], equal_nan=True) for i in ordered)
    inside = set(table["item_id"].to_pylist()[2:9])
    assert len(some) == 12
    for item_id, vector in some.items():
        assert np.array_equal(vector, whole[item_id], equal_nan=True) if item_id in inside else np.isnan(vector).all()


def test_an_id_twice_in_the_features_is_refused(package, features, tmp_path) -> None:
    table = pq.read_table(features)
    pq.write_table(pa.concat_tables([table.slice(3, 1), table]), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"row 4, field item_id: 'i8' is also the id of row 0"):
        ExtractedFeatures(tmp_path / "twice.parquet", ExportedModel.load(package / "models").manifest)


def feature_of(features: Path, item_id: str) -> np.ndarray:
    table = pq.read_table(features)
    vector = table["feature"][table["item_id"].to_pylist().index(item_id)].as_py()
    return np.array([[np.nan] * FEATURES if vector is None else vector], np.float32)


def test_a_second_run_sends_only_what_changed(vespa, package, items, columns) -> None:
    feed(items, package, vespa)
    assert feed(items, package, vespa).unchanged == 12
    columns["price"][3] = 99.0
    pq.write_table(pa.table(columns).slice(0, 10), items)
    vespa.operations.clear()
    report = feed(items, package, vespa)
    assert [(m, i) for m, i, _ in vespa.operations] == [("PUT", "id:item:item::i3")]
    assert vespa.documents["id:item:item::i3"]["price"] == 99.0
    assert (report.ok, report.unchanged, report.missing, report.removed) == (1, 9, 2, 0)
    report = feed(items, package, vespa, delete_missing=True)
    assert report.removed == 2 and len(vespa.documents) == 10
    assert feed(items, package, vespa, full=True).ok == 10


def test_ids_that_are_integers_are_fed_as_text(vespa, package, columns, features, tmp_path) -> None:
    """In every file that names items: the catalogue, its features, judgments, updates."""
    rows = np.arange(1000, 1012)
    file, numbered = tmp_path / "integers.parquet", tmp_path / "numbered.parquet"
    pq.write_table(pa.table(columns | {"item_id": rows}), file)
    assert validate(package, file) == []
    vectors = pq.read_table(features)
    ids = pa.array([1000 + int(name[1:]) for name in vectors["item_id"].to_pylist()])
    schema = vectors.schema.set(0, pa.field("item_id", pa.int64()))
    pq.write_table(pa.table([ids, *vectors.columns[1:]], schema=schema), numbered)
    judged = tmp_path / "judgments.parquet"
    pq.write_table(pa.table({"query": ["gown"], "item_id": [1002], "grade": [2]}), judged)
    model = ExportedModel.load(package / "models")
    led = ItemQueries(model.manifest, None, judged)
    assert feed(file, package, vespa, numbered, led).ok == 12
    document = vespa.documents["id:item:item::1001"]
    assert document["item_id"] == "1001" and document["image_embedding"]
    prices = tmp_path / "prices.parquet"
    pq.write_table(pa.table({"item_id": rows[:2], "price": [9.5, 9.5]}), prices)
    updates = UpdateSource.open(prices, DocumentType.load(package))
    assert feed_updates(Vespa(vespa.url), updates, tmp_path / "state").ok == 2
    twice = tmp_path / "twice.parquet"
    pq.write_table(pa.table({"item_id": [7, 8, 7], "title": ["red", "blue", None]}), twice)
    found = [str(error) for error in validate(package, twice)]
    assert len(found) == 2 and "field title" in found[0] + found[1] and "'7' is also the id of row 0" in "".join(found)


def test_what_changes_the_vectors_alone_leaves_what_updates_brought(vespa, package, items, tmp_path) -> None:
    feed(items, package, vespa)
    pq.write_table(pa.table({"item_id": ["i1", "i2"], "price": [9.5, 9.5]}), tmp_path / "prices.parquet")
    prices = UpdateSource.open(tmp_path / "prices.parquet", DocumentType.load(package))
    feed_updates(Vespa(vespa.url), prices, tmp_path / "state")
    judged = tmp_path / "judgments.parquet"
    pq.write_table(pa.table({"query": ["gown"], "item_id": ["i2"], "grade": [2]}), judged)
    model = ExportedModel.load(package / "models")
    before = vespa.documents["id:item:item::i2"]["embedding"]
    vespa.operations.clear()
    report = feed(items, package, vespa, item_queries=ItemQueries(model.manifest, None, judged))
    assert (report.ok, report.unchanged) == (1, 11)
    assert "price" not in vespa.operations[0][2]
    after = vespa.documents["id:item:item::i2"]
    assert after["price"] == 9.5 and after["embedding"] != before


def test_a_value_that_is_gone_from_the_file_is_cleared(vespa, package, items, columns) -> None:
    feed(items, package, vespa)
    columns["price"][4], columns["category"][4] = None, None
    pq.write_table(pa.table(columns), items)
    assert feed(items, package, vespa).ok == 1
    assert not {"price", "category"} & set(vespa.documents["id:item:item::i4"])


def test_an_item_that_expired_and_has_another_date_is_whole_again(vespa, package, items, columns, monkeypatch) -> None:
    columns["expires"] = [10**10] * 12
    pq.write_table(pa.table(columns), items)
    feed(items, package, vespa)
    before = vespa.documents.pop("id:item:item::i4")
    vespa.documents["id:item:item::stray"] = {"model_version": before["model_version"]}  # so the count shows nothing …
    monkeypatch.setattr("mrse_model.data.ids.SAMPLED", 0)  # … and others are asked for
    columns["expires"][4] = columns["expires"][5] = 2 * 10**10
    pq.write_table(pa.table(columns), items)
    vespa.operations.clear()
    assert feed(items, package, vespa).ok == 2 and {method for method, *_ in vespa.operations} == {"PUT"}
    assert vespa.documents["id:item:item::i4"] == before | {"expires": 2 * 10**10}


def test_a_vector_that_was_never_there_is_not_cleared(vespa, package, items, columns, features, tmp_path) -> None:
    """Vespa would have to make of nothing what the compact variant derives from it."""
    feed(items, package, vespa, features)
    columns["title"][0], columns["title"][1] = "red dress, new", "red dress, new"  # without and with an image
    pq.write_table(pa.table(columns), items)
    vespa.operations.clear()
    assert feed(items, package, vespa, features).ok == 2
    sent = {i.rpartition(":")[2]: fields for _, i, fields in vespa.operations}
    assert "image_embedding" not in sent["i0"] and sent["i1"]["image_embedding"]["assign"]
    table = pq.read_table(features).to_pydict()
    table["feature"][table["item_id"].index("i1")] = None  # the image is gone
    vectors = pa.array(table["feature"], pq.read_schema(features).field("feature").type)
    gone = pa.table(
        {"item_id": table["item_id"], "feature": vectors, "image_digest": pq.read_table(features)["image_digest"]}
    )
    pq.write_table(gone.replace_schema_metadata(pq.read_schema(features).metadata), tmp_path / "gone.parquet")
    vespa.operations.clear()
    assert feed(items, package, vespa, tmp_path / "gone.parquet").ok == 1
    assert [method for method, *_ in vespa.operations] == ["POST"]
    assert "image_embedding" not in vespa.documents["id:item:item::i1"]


def test_before_another_model_s_vectors_are_sent_every_id_is_asked_for(
    vespa, package, items, new_models, monkeypatch
) -> None:
    feed(items, package, vespa)
    lost = vespa.documents.pop("id:item:item::i4")
    vespa.documents["id:item:item::stray"] = {"model_version": lost["model_version"]}
    monkeypatch.setattr("mrse_model.data.ids.SAMPLED", 0)
    monkeypatch.setattr("feeders.feed.check_deployed", lambda vespa, model: None)  # the server knows one model
    source = ItemSource.open(items, DocumentType.load(package), ExportedModel.load(new_models), NoImages())
    assert feed_items(Vespa(vespa.url), source, items.with_suffix(".sqlite")).ok == 12
    assert vespa.documents["id:item:item::i4"]["price"] == lost["price"]


def test_fields_that_a_new_schema_has_are_filled(vespa, package, items, tmp_path) -> None:
    feed(items, package, vespa)
    int8 = build_variant(package, VARIANTS, "int8", tmp_path / "int8")
    vespa.fields = set(DocumentType.load(int8).fields)
    assert feed(items, int8, vespa).ok == 12
    assert all("embedding_int8" in fields for fields in vespa.documents.values())
    assert feed(items, int8, vespa).unchanged == 12


def test_an_index_that_lost_its_documents_is_fed_again(vespa, package, items) -> None:
    feed(items, package, vespa)
    vespa.documents.clear()
    report = feed(items, package, vespa)
    assert report.ok == 12 and "12 items of the journal were not in the index" in report.note


def test_only_what_the_index_lost_is_fed_again(vespa, package, items) -> None:
    feed(items, package, vespa)
    for lost in ("i3", "i8"):
        del vespa.documents[f"id:item:item::{lost}"]
    assert feed(items, package, vespa).ok == 2 and len(vespa.documents) == 12


def test_of_two_files_in_one_index_both_notice_its_loss(vespa, package, items, columns, tmp_path) -> None:
    columns["item_id"] = [f"other{n}" for n in range(12)]
    pq.write_table(pa.table(columns), tmp_path / "others.parquet")
    files = (items, tmp_path / "others.parquet")
    for file in files:
        feed(file, package, vespa)
    vespa.documents.clear()
    assert [feed(file, package, vespa).ok for file in files] == [12, 12]


def test_a_feed_that_broke_off_goes_on(vespa, package, items, monkeypatch) -> None:
    whole = ItemSource.operations

    def cut(self, journal, report, **options):
        for n, operation in enumerate(whole(self, journal, report, **options)):
            if n == 5:
                raise RuntimeError("killed")
            yield operation

    monkeypatch.setattr(ItemSource, "operations", cut)
    with pytest.raises(RuntimeError, match="killed"):
        feed(items, package, vespa)
    monkeypatch.undo()
    delivered = len(vespa.documents)
    assert delivered == 5
    report = feed(items, package, vespa)
    assert (report.ok, report.unchanged) == (12 - delivered, delivered) and len(vespa.documents) == 12


def test_a_report_that_cannot_be_written_ends_the_feed(vespa, package, items, monkeypatch) -> None:
    def full(self, result):
        raise OSError("no space left on device")

    monkeypatch.setattr("feeders.index.journal.Journal.acknowledge", full)
    with pytest.raises(OSError, match="no space left"):
        feed(items, package, vespa)


def test_busy_servers_are_waited_for(vespa, package, items) -> None:
    vespa.status = lambda method, path, tries: {1: 429, 2: 503, 3: 504, 4: 507}.get(tries, 200)
    report = feed(items, package, vespa)
    assert (report.ok, report.failed) == (12, 0)


def test_refused_documents_are_kept_with_the_reason(vespa, package, items) -> None:
    vespa.status = lambda method, path, tries: 400 if path.endswith("/i7") else 200
    report = feed(items, package, vespa)
    assert (report.ok, report.failed) == (11, 1)
    assert "told to answer 400" in report.first_error
    [line] = report.dead_letters.read_text().splitlines()
    assert json.loads(line).keys() == {"put", "fields"} and json.loads(line)["put"] == "id:item:item::i7"
    [why] = reasons_file(report.dead_letters).read_text().splitlines()
    assert json.loads(why) == {"id": "id:item:item::i7", "status": 400, "message": "told to answer 400"}
    vespa.status = lambda method, path, tries: 200
    report = feed(items, package, vespa)
    assert (report.ok, report.unchanged, report.dead_letters) == (1, 11, None)


def test_a_server_that_dies_ends_the_feed_with_a_reason(items, package) -> None:
    report = Report(rows=12)
    operations = (Operation("put", "item", item.id, item.document) for item in source_of(items, package).documents())
    gone = Vespa("http://127.0.0.1:9")
    send_all(gone, operations, items.with_suffix(".refused"), report=report, policy=Policy(give_up_after=0.3))
    assert report.stopped.startswith("no success for") and (report.ok, report.failed, report.not_reached) == (0, 0, 12)


def test_the_queries_that_led_to_an_item_are_encoded_with_it(vespa, package, items, tmp_path) -> None:
    log = tmp_path / "searches.parquet"
    rows = {
        "search_id": ["a", "b", "c"],
        "user_id": ["u1", "u1", "u2"],
        "timestamp": pa.array([100, 200, 300], pa.timestamp("s")),
        "query": ["summer dress", "red dress", "red dress"],
        "shown": [["i1"], ["i1", "i2"], ["i1"]],
        "clicked": [["i1"], ["i1", "i2"], ["i1"]],
        "ordered": [[], ["i2"], []],
    }
    pq.write_table(pa.table(rows), log)
    model = ExportedModel.load(package / "models")
    clicked = ItemQueries(model.manifest, log)
    assert clicked.queries(["i1", "i2", "i3"]) == [["red dress", "summer dress"], ["red dress"], []]
    judged = tmp_path / "judgments.parquet"
    pairs = {"query": ["gown", "Red Dress", "gown"], "item_id": ["i2", "i3", "i3"], "grade": [2, 2, 1]}
    pq.write_table(pa.table(pairs), judged)
    both = ItemQueries(model.manifest, log, judged)
    assert both.queries(["i1", "i2", "i3"]) == [["red dress", "summer dress"], ["red dress", "gown"], ["red dress"]]
    feed_items(Vespa(vespa.url), source_of(items, package, item_queries=clicked), tmp_path / "state")
    vectors = model.item_vectors(["red dress 1"], [["women", "dress"]], None, [["red dress", "summer dress"]])
    got = decoded(vespa.documents["id:item:item::i1"]["embedding"]["values"])
    np.testing.assert_allclose(got, vectors.embedding[0], atol=2**-8)

    people = feed_shoppers(Vespa(vespa.url), ShopperSource(log), tmp_path / "people")
    assert (people.ok, people.failed, people.stopped) == (2, 0, ""), people
    shopper = vespa.documents["id:item:shopper::u1"]
    assert shopper["clicks"] == {"cells": {"i1": 200, "i2": 200}} and shopper["orders"] == {"cells": {"i2": 200}}
    asked = {(c["address"]["query"], c["address"]["item"]): c["value"] for c in shopper["asked"]["cells"]}
    assert asked == {("summer dress", "i1"): 100, ("red dress", "i1"): 200, ("red dress", "i2"): 200}
    assert feed_shoppers(Vespa(vespa.url), ShopperSource(log), tmp_path / "people").unchanged == 2


def test_led_by_counts_as_training_does(package, tmp_path) -> None:
    """A search counts once, whatever came of it, and a bot's not at all."""
    bot = [("bot", 1000 + n, "cheap", ["i1"], []) for n in range(61)]
    people = [("u1", 100, "gown", ["i1"], []), ("u2", 200, "gown", ["i1"], []), ("u3", 300, "dress", ["i1"], ["i1"])]
    users, times, queries, clicked, ordered = zip(*people, *bot, strict=True)
    table = {
        "search_id": [str(n) for n in range(len(users))], "user_id": users, "query": queries, "clicked": clicked,
        "timestamp": pa.array(times, pa.timestamp("s")), "ordered": ordered, "shown": clicked,
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "searches.parquet")
    found = ItemQueries(ExportedModel.load(package / "models").manifest, tmp_path / "searches.parquet")
    assert found.queries(["i1", "i2"]) == [["gown", "dress"], []]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A search log: i1 is clicked by two users and ordered by one of them, i2 is put into a cart, and a bot clicks i3;
    i99 has left the catalogue.
    """
    bot = [("bot", 1000 + n, "cheap", ["i3"], [], []) for n in range(61)]
    people = [
        ("u1", 100, "red dress", ["i1", "i99"], [], ["i1"]),
        ("u2", 200, "Red  dress", ["i1"], [], []),
        ("u2", 300, "gown", ["i2"], ["i2"], []),
    ]
    users, times, queries, clicked, carted, ordered = zip(*people, *bot, strict=True)
    table = {
        "search_id": [str(n) for n in range(len(users))], "user_id": users, "query": queries, "clicked": clicked,
        "carted": carted, "ordered": ordered, "timestamp": pa.array(times, pa.timestamp("s")), "shown": clicked,
    }  # fmt: skip
    pq.write_table(pa.table(table), tmp_path / "searches.parquet")
    return tmp_path / "searches.parquet"


def learnt_from(package: Path, folder: Path, popularity: str | None) -> Path:
    """A package whose model's hybrid ranks popular items higher."""
    app = shutil.copytree(package, folder / f"app-{popularity}")
    replace(ExportedModel.load(app / "models").manifest, popularity=popularity).save(app / "models")
    return app


def test_the_popularity_that_is_fed_is_the_one_that_was_trained_with(vespa, package, items, log, tmp_path) -> None:
    catalogue, said = read_catalogue(items), list[str]()
    write_examples(
        tmp_path / "examples", catalogue, searches=SearchesFile(log), settings=ExampleSettings(validation_fraction=0)
    )
    app = learnt_from(package, tmp_path, "clicks")
    weights = ExportedModel.load(app / "models").manifest.event_weights
    trained = Popularity.read(items, len(catalogue), tmp_path / "examples", weights)
    assert trained is not None and trained.source == "clicks"
    source = open_items(items, app, images=False, searches=log, warn=said.append)
    assert feed_items(Vespa(vespa.url), source, tmp_path / "state").ok == 12 and said == []
    fed = [vespa.documents[f"id:item:item::{item}"]["popularity"] for item in catalogue.ids]
    assert fed == trained.values.tolist() == [0.0, 4.0, 2.0] + [0.0] * 9
    again = open_items(items, app, images=False, searches=log, warn=said.append)
    assert feed_items(Vespa(vespa.url), again, tmp_path / "state").unchanged == 12

    shards = tmp_path / "vectors"
    encode_catalogue(items, app / "models", shards, searches=log)
    with_vectors = open_items(items, app, searches=log, vectors=shards, warn=said.append)
    assert [item.columns["popularity"] for item in with_vectors.documents()] == fed and said == []


def test_another_popularity_than_the_model_s_is_told(package, items, columns, log, tmp_path) -> None:
    own = tmp_path / "own.parquet"
    pq.write_table(pa.table({k: v for k, v in columns.items() if k != "image"} | {"popularity": [5.0] * 12}), own)

    def opened(file: Path, popularity: str | None, **options) -> tuple[list, list[str]]:
        app, said = tmp_path / f"app-{popularity}", list[str]()
        app = app if app.exists() else learnt_from(package, tmp_path, popularity)
        source = open_items(file, app, images=False, warn=said.append, **options)
        return [item.columns.get("popularity") for item in source.documents()][:2], said

    assert opened(items, None, searches=log) == ([None, None], [])  # no model needs it
    for popularity, option in (("clicks", "give --searches"), ("column", "give the column popularity")):
        fed, said = opened(items, popularity)
        assert fed == [None, None] and len(said) == 1 and "is not fed" in said[0] and option in said[0]
    assert opened(own, "column", searches=log) == ([5.0, 5.0], [])
    fed, said = opened(own, "clicks", searches=log)
    assert fed == [5.0, 5.0] and "is fed, and the model" in said[0]  # the catalogue's own wins
    fed, said = opened(own, "clicks", searches=log, columns=["price"])
    assert fed == [None, None] and "popularity is left out, and takes the place of clicks" in said[0]
    app = tmp_path / "app-clicks"
    manifest = ExportedModel.load(app / "models").manifest
    for clicks, says in ((4, []), (1, ["4.0 times", "for more"]), (40, ["0.1 times", "for less"])):
        replace(manifest, training={"examples": {"click": clicks}}).save(app / "models")
        fed, said = opened(items, "clicks", searches=log)
        assert fed == [0.0, 4.0] and len(said) == bool(says) and all(some in said[0] for some in says)
    fed, said = opened(own, "column", columns=["price"])
    assert fed == [None, None] and "give the column popularity" in said[0]


def test_verify_compares_the_popularity(package, items, log, tmp_path) -> None:
    app, said = learnt_from(package, tmp_path, "clicks"), list[str]()
    with running_engine(tmp_path / "data") as url:
        deploy(url, app)
        source = open_items(items, app, images=False, searches=log, warn=said.append)
        feed_items(Vespa(url), source, tmp_path / "state")
        assert verify(Vespa(url), source, tmp_path / "state").wrong == 0
        Vespa(url).update_data("item", "i1", {"popularity": 1.0}, namespace="item")
        found = verify(Vespa(url), source, tmp_path / "state")
        assert found.wrong == 1 and found.fields == {"popularity": 1}


def test_what_the_model_was_trained_with_and_the_feed_lacks_is_told(package, tmp_path) -> None:
    manifest = ExportedModel.load(package / "models").manifest
    trained = replace(manifest, training={"examples": {"click": 1200, "order": 300, "judged": 70, "pseudo-query": 9}})
    said: list[str] = []
    assert item_queries_for(trained, None, None, said.append) is None
    assert [line.split(":")[0] for line in said] == ["without --searches", "without --judgments"]
    assert "1,500 clicks" in said[0] and "70 judgments" in said[1]
    judged = tmp_path / "judgments.parquet"
    pq.write_table(pa.table({"query": ["gown"], "item_id": ["i2"], "grade": [2]}), judged)
    said.clear()
    found = item_queries_for(trained, None, judged, said.append)
    assert found and found.queries(["i2"]) == [["gown"]] and len(said) == 1
    said.clear()
    assert (
        item_queries_for(replace(manifest, training={"examples": {"pseudo-query": 9}}), None, None, said.append) is None
    )
    assert not said


def test_updates_assign_and_leave_nulls_alone(vespa, package, tmp_path) -> None:
    file = tmp_path / "prices.parquet"
    pq.write_table(pa.table({"item_id": ["i1", "i2"], "price": [9.5, None], "in_stock": [False, True]}), file)
    source = UpdateSource.open(file, DocumentType.load(package))
    report = feed_updates(Vespa(vespa.url), source, tmp_path / "state")
    assert report.ok == 2
    sent = {i: fields for _, i, fields in vespa.operations}
    assert sent["id:item:item::i1"] == {"price": {"assign": 9.5}, "in_stock": {"assign": False}}
    assert sent["id:item:item::i2"] == {"in_stock": {"assign": True}}


def test_an_update_of_one_item_twice_is_refused(package, tmp_path) -> None:
    """They are sent side by side: which of them would win is chance."""
    file = tmp_path / "prices.parquet"
    pq.write_table(pa.table({"item_id": ["i1", "i2", "i1"], "price": [9.5, 1.0, 8.5]}), file)
    with pytest.raises(InputError, match=r"row 2, field item_id: 'i1' is also the id of row 0"):
        UpdateSource.open(file, DocumentType.load(package))


def test_features_of_another_size_are_refused(package, features) -> None:
    manifest = ExportedModel.load(package / "models").manifest
    assert manifest.image_encoder
    larger = replace(manifest, image_encoder=replace(manifest.image_encoder, size=224))
    with pytest.raises(
        InputError, match=r"images of 96 pixels, and the model was trained on 224.*mrse features --size 224"
    ):
        ExtractedFeatures(features, larger)


def test_a_title_cannot_be_updated_alone(package, tmp_path) -> None:
    file = tmp_path / "titles.parquet"
    pq.write_table(pa.table({"item_id": ["i1"], "title": ["x"]}), file)
    with pytest.raises(InputError, match=r"field title: .*cannot be updated alone.*mrse feed"):
        UpdateSource.open(file, DocumentType.load(package))


def test_another_model_on_the_server_is_refused(vespa, package, items, tmp_path) -> None:
    vespa.other_model = True
    with pytest.raises(InputError, match=r"manifest.json, field model_version: .* is not mrse-0123456789ab"):
        feed(items, package, vespa)
    assert vespa.operations == []


def test_feeding_works_in_a_notebook(vespa, package, items) -> None:
    """There an event loop is already running."""

    async def cell() -> Report:
        return feed(items, package, vespa)

    assert asyncio.run(cell()).ok == 12
