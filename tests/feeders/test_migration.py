"""From one model to another: the order of the steps, and going on after a failure (tests/vespa_java lets Vespa judge
the package of each step).
"""

from __future__ import annotations

import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner
from vespa.application import Vespa

from feeders.feed import feed_items
from feeders.image_features import NoImages
from feeders.index.deployed import indexed
from feeders.items import ItemSource
from feeders.migration import Migration
from mrse_cli import main
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from mrse_model.serving.mix import mix_constant
from vespa_package.deploy import deploy_package
from vespa_package.fields import DocumentType
from vespa_package.schema import read_schema, read_schemas
from vespa_package.second_set import double_package, versioned_fields
from vespa_package.variants import build_variant

VARIANTS = Path(__file__).parents[2] / "variants"
OLD, NEW = "mrse-0123456789ab", "mrse-ffffffffffff"


@pytest.fixture
def app(package, tmp_path) -> Path:
    """A copy, since the migration changes its models."""
    return shutil.copytree(package, tmp_path / "app")


@pytest.mark.parametrize("variant", ["default", "int8", "compact"])
def test_the_second_set_is_complete_and_apart(app, new_models, tmp_path, variant) -> None:
    base = app if variant == "default" else build_variant(app, VARIANTS, variant, tmp_path / "variant")
    out = double_package(base, app / "models", new_models, tmp_path / "two", serve_next=True)
    made = versioned_fields(read_schema(base / "schemas" / "item.sd"))
    fields = read_schemas(out)["item"].fields
    assert {"embedding", "image_embedding", "text_feature", "model_version"} <= set(made)
    assert set(made) == {name for name, field in fields.items() if "tensor" in field.type} - {
        name + "_next" for name in made
    } | {"model_version"}
    names = "|".join(made)
    for name in made:
        old, new = fields[name], fields[name + "_next"]
        assert (new.type, new.options) == (old.type, old.options)
        assert new.indexing == re.sub(rf"input ({names})", r"input \1_next", old.indexing)
    for profile in (out / "schemas" / "item").glob("*_next.profile"):
        text = re.sub(r"#.*", "", profile.read_text())
        assert not re.search(rf"(attribute\(|field, ?)({names})\)", text), f"{profile.name} reads the first set"
        assert not re.search(r"models/(?!next_)", text), f"{profile.name} runs the first model"
    for profile in (out / "search" / "query-profiles").glob("*.xml"):
        assert not re.search(r"nearestNeighbor\(\w+(?<!_next),|embed\(\w+(?<!_next),", profile.read_text()), profile


@pytest.mark.parametrize("older", ["the old model", "the new model"])
def test_an_export_from_before_popularity_gives_it_no_weight(app, new_models, tmp_path, older) -> None:
    folder = app / "models" if older == "the old model" else new_models
    (folder / "mix_popularity.json").unlink()
    out = double_package(app, app / "models", new_models, tmp_path / "two", serve_next=False)
    name = "mix_popularity.json" if older == "the old model" else "next_mix_popularity.json"
    assert (out / "models" / name).read_text() == mix_constant(0) + "\n"
    next_profile = (out / "schemas" / "item" / "hybrid_linear_next.profile").read_text()
    assert "file: models/next_mix_popularity.json" in next_profile and "constant(mix_popularity_next)" in next_profile
    assert "attribute(popularity)" in next_profile, "the items' own field, of which there is one"


def feed(app: Path, items: Path, url: str) -> None:
    model = ExportedModel.load(app / "models")
    source = ItemSource.open(items, DocumentType.load(app), model, NoImages())
    feed_items(Vespa(url), source, app.with_name("app.feed.sqlite"))


def migrate(app: Path, items: Path, new_models: Path, url: str, *more: str):
    arguments = ["migrate", new_models, items, "--app", app, "-e", url, "--config-server", url, "--no-images", *more]
    return CliRunner().invoke(main.app, list(map(str, arguments)), catch_exceptions=False)


def test_each_step_serves_vectors_that_are_complete(vespa, app, items, new_models) -> None:
    feed(app, items, vespa.url)
    served = []

    def on_deploy(body: bytes) -> None:
        package = zipfile.ZipFile(io.BytesIO(body))
        suffix = (
            "_next"
            if "nearestNeighbor(embedding_next" in package.read("search/query-profiles/q2i.xml").decode()
            else ""
        )
        model = json.loads(package.read("models/manifest.json"))["model_version"]
        embeds = NEW if suffix else model
        held = {d.get("model_version" + suffix) for d in vespa.documents.values()}
        served.append((suffix, embeds, held))

    vespa.on_deploy = on_deploy
    out = migrate(app, items, new_models, vespa.url)
    assert out.exit_code == 0
    assert served == [
        ("", OLD, {OLD}),
        ("_next", NEW, {NEW}),
        ("_next", NEW, {NEW}),
        ("", NEW, {NEW}),
        ("", NEW, {NEW}),
    ]
    assert json.loads((app / "models" / "manifest.json").read_text())["model_version"] == NEW
    model = ExportedModel.load(app / "models")
    cells = vespa.documents["id:item:item::i1"]["embedding"]["values"]
    stored = (np.frombuffer(bytes.fromhex(cells), ">u2").astype(np.uint32) << 16).view(np.float32)
    expected = model.item_vectors(["red dress 1"], [["women", "dress"]]).embedding[0]
    np.testing.assert_allclose(stored, expected, atol=2**-8)


def test_a_migration_that_failed_goes_on(vespa, app, items, new_models, monkeypatch) -> None:
    feed(app, items, vespa.url)
    plain_updates = []

    def status(method: str, path: str, tries: int) -> int:
        if method == "PUT" and path.endswith("/i7") and len(vespa.deployed) == 2:
            return 400
        return 200

    vespa.status = status
    with pytest.raises(InputError, match="1 items of the index have no vectors of mrse-ffffffffffff"):
        migrate(app, items, new_models, vespa.url)
    assert len(vespa.deployed) == 2 and indexed(Vespa(vespa.url), NEW) == (11, 1)
    vespa.status = lambda method, path, tries: 200
    vespa.operations.clear()
    encoded: list[str] = []
    encode = ExportedModel.item_vectors

    def counted(model, titles, *rest):
        encoded.extend(titles)
        return encode(model, titles, *rest)

    monkeypatch.setattr(ExportedModel, "item_vectors", counted)
    assert migrate(app, items, new_models, vespa.url).exit_code == 0
    plain_updates = [i for m, i, fields in vespa.operations if m == "PUT" and "embedding" in fields]
    assert plain_updates == ["id:item:item::i7"] and encoded == ["red dress 7"]
    assert indexed(Vespa(vespa.url), NEW) == (12, 0)


def test_a_migration_killed_at_its_very_end_does_not_turn_to_fields_that_are_gone(
    vespa, app, items, new_models
) -> None:
    feed(app, items, vespa.url)
    old = shutil.copytree(app / "models", items.parent / "old")
    assert migrate(app, items, new_models, vespa.url).exit_code == 0 and len(vespa.deployed) == 5
    for fields in vespa.documents.values():  # as the last step leaves them
        for name in [name for name in fields if name.endswith("_next")]:
            del fields[name]
    shutil.copytree(old, app / "models", dirs_exist_ok=True)
    assert migrate(app, items, new_models, vespa.url).exit_code == 0 and len(vespa.deployed) == 6
    last = zipfile.ZipFile(io.BytesIO(vespa.deployed[-1]))
    assert b"_next" not in last.read("schemas/item.sd") + last.read("search/query-profiles/q2i.xml")


def test_what_changed_in_the_file_meanwhile_is_left_to_the_next_feed(
    vespa, app, items, columns, new_models, monkeypatch
) -> None:
    feed(app, items, vespa.url)
    columns["price"][3] = 99.0
    pq.write_table(pa.table(columns), items)
    assert migrate(app, items, new_models, vespa.url).exit_code == 0
    assert vespa.documents["id:item:item::i3"]["price"] == 3.0
    vespa.operations.clear()
    monkeypatch.setattr("feeders.feed.check_deployed", lambda vespa, model: None)  # the server knows one model
    feed(app, items, vespa.url)
    assert [i for _, i, _ in vespa.operations] == ["id:item:item::i3"]
    assert vespa.documents["id:item:item::i3"]["price"] == 99.0


def test_items_that_come_during_a_migration_get_both_vectors(vespa, app, items, columns, new_models) -> None:
    """After step 1 the nightly feed of the old model is refused, and with the new model's export it feeds both."""
    feed(app, items, vespa.url)
    old, state, server = ExportedModel.load(app / "models"), app.with_name("app.feed.sqlite"), Vespa(vespa.url)

    def open_source(model: ExportedModel, **options) -> ItemSource:
        return ItemSource.open(items, DocumentType.load(app), model, NoImages(), **options)

    def deploy(folder: Path) -> None:
        deploy_package(folder, vespa.url, say=lambda line: None)
        if len(vespa.deployed) != 2:
            return
        columns["item_id"][0], columns["title"][1] = "new", "blue boot"
        pq.write_table(pa.table(columns), items)
        with pytest.raises(InputError, match=r"a migration to another model is under way.*--next-models"):
            feed_items(server, open_source(old), state)
        report = feed_items(server, open_source(old, next_model=ExportedModel.load(new_models)), state)
        assert report.ok == 12 and vespa.documents["id:item:item::new"]["model_version_next"] == NEW
        del vespa.documents["id:item:item::i0"]  # it left the catalogue as "new" came

    plain = lambda model: open_source(model, columns=())  # noqa: E731
    migration = Migration(app, new_models, plain, deploy, server, server, state, say=lambda line: None)
    assert migration.run() == NEW
    model = ExportedModel.load(app / "models")
    assert indexed(Vespa(vespa.url), NEW) == (12, 0) and len(vespa.deployed) == 5
    for name, title in (("new", "red dress 0"), ("i1", "blue boot")):
        cells = vespa.documents[f"id:item:item::{name}"]["embedding"]["values"]
        stored = (np.frombuffer(bytes.fromhex(cells), ">u2").astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_allclose(stored, model.item_vectors([title], [["women", "dress"]]).embedding[0], atol=2**-8)


def test_the_title_may_be_another_column(vespa, app, items, columns, new_models) -> None:
    columns["name"] = [f"steel mug {n}" for n in range(12)]
    columns["price"] = ["a lot"] * 12  # what was not fed does not matter
    pq.write_table(pa.table(columns), items)
    source = ItemSource.open(
        items, DocumentType.load(app), ExportedModel.load(app / "models"), NoImages(), columns=(), title="name"
    )
    feed_items(Vespa(vespa.url), source, app.with_name("app.feed.sqlite"))
    assert migrate(app, items, new_models, vespa.url, "--title", "name").exit_code == 0
    assert vespa.documents["id:item:item::i1"]["title"] == "steel mug 1"
    cells = vespa.documents["id:item:item::i1"]["embedding"]["values"]
    stored = (np.frombuffer(bytes.fromhex(cells), ">u2").astype(np.uint32) << 16).view(np.float32)
    expected = ExportedModel.load(new_models).item_vectors(["steel mug 1"], [["women", "dress"]]).embedding[0]
    np.testing.assert_allclose(stored, expected, atol=2**-8)


def test_a_migration_after_one_that_was_given_up(vespa, app, items, new_models) -> None:
    """Its second set of fields is gone, and the journal of it is not believed."""
    feed(app, items, vespa.url)
    vespa.status = lambda method, path, tries: 400 if method == "PUT" and path.endswith("/i7") else 200
    with pytest.raises(InputError, match="1 items of the index have no vectors of mrse-ffffffffffff"):
        migrate(app, items, new_models, vespa.url)
    vespa.operations.clear()
    with pytest.raises(InputError, match="1 items of the index have no vectors of mrse-ffffffffffff"):
        migrate(app, items, new_models, vespa.url)
    assert not vespa.operations  # it went on: what was refused was sent alone
    for fields in vespa.documents.values():
        for name in [name for name in fields if name.endswith("_next")]:
            del fields[name]
    vespa.status = lambda method, path, tries: 200
    assert migrate(app, items, new_models, vespa.url).exit_code == 0
    assert indexed(Vespa(vespa.url), NEW) == (12, 0)


def test_an_item_that_the_file_lacks_stops_it_before_the_switch(vespa, app, items, new_models) -> None:
    feed(app, items, vespa.url)
    vespa.documents["id:item:item::stray"] = {"item_id": "stray", "model_version": OLD}
    with pytest.raises(InputError, match="must hold every item of the index"):
        migrate(app, items, new_models, vespa.url)
    assert len(vespa.deployed) == 1 and indexed(Vespa(vespa.url), NEW) == (0, 13)


def test_the_same_model_is_refused(vespa, app, items) -> None:
    with pytest.raises(InputError, match=f"has model {OLD} already"):
        migrate(app, items, app / "models", vespa.url)
