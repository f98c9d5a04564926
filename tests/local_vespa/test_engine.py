"""The engine without HTTP: writes, restarts, deployments."""

import asyncio
import datetime
import os
import sqlite3
import threading

import numpy as np
import orjson
import pytest

from local_vespa.api.deploy import DeployApi
from local_vespa.api.search import SearchApi
from local_vespa.documents.operations import Operation, read_put, read_update
from local_vespa.documents.selection import parse_selection
from local_vespa.engine import Engine
from local_vespa.errors import DeployError, DocumentError, StorageFull
from local_vespa.http import Request
from local_vespa.index import text_index as inverted
from local_vespa.index.text_index import TextIndex
from tests.helpers.small_app import THINGS, package_files, zipped


def write(engine, *operations):
    """The outcome of each operation, submitted together."""

    async def run():
        return await asyncio.gather(*(engine.submit(o) for o in operations), return_exceptions=True)

    return asyncio.run(run())


def put(engine, id, fields, kind="thing", **options):
    schema = engine.schema(kind)
    return read_put(
        schema, f"id:shop:{kind}::{id}", {"fields": fields}, options.get("condition"), options.get("create", False)
    )


def update(engine, id, fields, condition=None, create=False):
    return read_update(engine.schema("thing"), f"id:shop:thing::{id}", {"fields": fields}, condition, create)


@pytest.fixture
def engine(tmp_path):
    engine = Engine(tmp_path)
    engine.deploy(zipped(package_files()))
    assert write(engine, *(put(engine, i, f) for i, f in THINGS.items())) == [None] * len(THINGS)
    yield engine
    engine.close()


def stored(engine, id="a"):
    return engine.get(f"id:shop:thing::{id}")


def test_one_group_sees_its_own_writes(engine):
    changes = [
        put(engine, "x", {"stock": 1, "labels": ["a"], "marks": {"m": 1}}),
        update(engine, "x", {"stock": {"increment": 4}}),
        update(engine, "x", {"stock": {"multiply": 3}, "price": {"assign": 2.5}}),
        update(engine, "x", {"labels": {"add": ["b", "a"]}, "marks": {"add": {"n": 7}}}),
        update(engine, "x", {"labels": {"remove": ["a"]}, "marks": {"remove": {"m": 0}}}),
        update(engine, "x", {"price": {"decrement": 0.5}, "stock": {"divide": 5}}),
    ]
    assert write(engine, *changes) == [None] * 6
    assert stored(engine, "x") == {"stock": 3, "labels": ["b"], "marks": {"n": 7}, "price": 2.0}


def test_conditions(engine):
    low, high = parse_selection("thing.stock == 3"), parse_selection("thing.stock > 100")
    assign = {"price": {"assign": 1.0}}
    outcomes = write(
        engine,
        update(engine, "a", assign, low),
        update(engine, "a", assign, high),
        update(engine, "nobody", assign, low),
        update(engine, "made", assign, low, create=True),
        put(engine, "b", {"price": 9.0}, condition=high),
        Operation("remove", "id:shop:thing::c", engine.schema("thing"), condition=high),
    )
    assert [o.status if isinstance(o, DocumentError) else None for o in outcomes] == [None, 412, 412, None, 412, 412]
    assert stored(engine, "made") == {"price": 1.0} and stored(engine, "b")["price"] == 35.5 and stored(engine, "c")


def test_an_update_of_nothing_does_nothing(engine):
    assert write(engine, update(engine, "nobody", {"stock": {"increment": 1}})) == [None]
    assert stored(engine, "nobody") is None


def test_a_restart_rebuilds_everything(engine, tmp_path):
    write(
        engine,
        update(engine, "a", {"title": {"assign": "green hat"}}),
        Operation("remove", "id:shop:thing::b", engine.schema("thing")),
    )
    before = {i: stored(engine, i) for i in THINGS}
    engine.close()
    again = Engine(tmp_path)
    assert {i: stored(again, i) for i in THINGS} == before and stored(again, "b") is None
    table = again.tables["thing"]
    assert table.count == 4 and len(table.ids) == 4
    assert [table.ids[r] for r in table.texts["title"].word("green", table.live).rows] == ["id:shop:thing::a"]
    again.close()
    engine.__init__(tmp_path)


def test_a_folder_serves_one_engine(engine, tmp_path):
    with pytest.raises(RuntimeError, match="in use by another local_vespa"):
        Engine(tmp_path)


@pytest.mark.parametrize("where", ["start", "documents"])
def test_a_damaged_store_is_said_and_left_as_it_is(engine, tmp_path, where):
    engine.close()
    path = tmp_path / "local_vespa.sqlite"
    if where == "start":
        path.write_bytes(b"garbage" * 100)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE document SET fields = x'7b'")
        connection.close()
    with pytest.raises(RuntimeError, match=r"local_vespa.sqlite is damaged .* feed again"):
        Engine(tmp_path)
    if where == "start":
        assert path.read_bytes() == b"garbage" * 100
    path.unlink()
    engine.__init__(tmp_path)  # the folder is free again; a store that is missing begins empty


def replaced(path, old, new, more=None):
    files = package_files()
    text = files[path].decode()
    assert old in text
    return zipped(files | {path: text.replace(old, new).encode()} | (more or {}))


def overrides(*ids):
    until = datetime.date.today() + datetime.timedelta(days=5)
    allowed = "".join(f"<allow until='{until}'>{i}</allow>" for i in ids)
    return {"validation-overrides.xml": f"<validation-overrides>{allowed}</validation-overrides>".encode()}


def test_new_profiles_and_fields_keep_the_documents(engine):
    zipped_new = replaced(
        "schemas/thing.sd", "field colour", "field extra type int { indexing: attribute | summary }\n field colour"
    )
    before = {i: stored(engine, i) for i in THINGS}
    application = engine.deploy(zipped_new)
    assert application.generation == 2 and {i: stored(engine, i) for i in THINGS} == before
    assert write(engine, update(engine, "a", {"extra": {"assign": 4}})) == [None]
    assert stored(engine)["extra"] == 4 and engine.tables["thing"].count == len(THINGS)


def test_type_changes_need_an_override_and_drop_the_values(engine):
    change = ("schemas/thing.sd", "field stock type int", "field stock type string")
    with pytest.raises(DeployError) as e:
        engine.deploy(replaced(*change, more={"schemas/thing/two.profile": b""}))
    assert str(e.value).startswith(
        "Invalid application: field-type-change: Document type 'thing': Field 'stock' changed: data type: 'int' -> "
        "'string'. "
        "To allow this add <allow until='yyyy-mm-dd'>field-type-change</allow> to validation-overrides.xml"
    )
    assert stored(engine)["stock"] == 3
    engine.deploy(replaced(*change, more={"schemas/thing/two.profile": b""} | overrides("field-type-change")))
    assert "stock" not in stored(engine) and stored(engine)["price"] == 20.0


HNSW = "index { hnsw { max-links-per-node: 8 } }"
METRIC = "distance-metric: prenormalized-angular"


@pytest.mark.parametrize(
    ("before", "after", "override", "words"),
    [
        ("colour type string { indexing: attribute", "colour type string { indexing: index", "indexing-change",
         "Field 'colour' changed: add index aspect"),
        ("index: enable-bm25", "index: enable-bm25 \n stemming: none", "indexing-change",
         "Field 'title' changed: stemming switched off"),
        ("index: enable-bm25", "index: enable-bm25 \n normalizing: none", "indexing-change",
         "normalizing switched off"),
        (METRIC, "distance-metric: angular", "hnsw-settings-change",
         "change property 'distance-metric' from 'prenormalized-angular' to 'angular'"),
        (HNSW, "index { hnsw { max-links-per-node: 16 } }", "hnsw-settings-change",
         "change hnsw index property 'max-links-per-node' from '8' to '16'"),
        (HNSW, "", "hnsw-settings-change", "from '8' to '16'"),  # an index without settings has the default
    ],
)  # fmt: skip
def test_settings_of_an_index_do_not_change_without_an_override(engine, before, after, override, words):
    change = ("schemas/thing.sd", before, after)
    with pytest.raises(DeployError) as refused:
        engine.deploy(replaced(*change))
    assert words in str(refused.value) and f"<allow until='yyyy-mm-dd'>{override}</allow>" in str(refused.value)
    assert engine.application.generation == 1
    engine.deploy(replaced(*change, more=overrides(override)))
    assert stored(engine)["price"] == 20.0
    with pytest.raises(DeployError, match=override):
        engine.deploy(zipped(package_files()))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("colour type string { indexing: attribute | summary }", "colour type string { indexing: summary }"),
        ("index { hnsw { max-links-per-node: 8 } }", "index { hnsw { max-links-per-node: 8 \n "
                                                     "neighbors-to-explore-at-insert: 50 } }"),
        ("indexing: attribute | index | summary", "indexing: attribute | summary"),
        ("index: enable-bm25", ""),
        ("field price type float { indexing: attribute | summary }",
         "field price type float { indexing: attribute | summary \n attribute: fast-search }"),
    ],
)  # fmt: skip
def test_other_settings_change_as_they_like(engine, before, after):
    changes = {"schemas/thing/words.profile": b""}
    engine.deploy(replaced("schemas/thing.sd", before, after, more=changes | {"schemas/thing/fused.profile": b""}))
    assert stored(engine)["stock"] == 3 and engine.application.generation == 2


def test_pages_of_an_attribute_do_not_go_without_an_override(engine):
    field = "field price type float { indexing: attribute | summary"
    engine.deploy(replaced("schemas/thing.sd", field, f"{field} \n attribute: paged"))
    with pytest.raises(DeployError, match="paged-setting-removal"):
        engine.deploy(zipped(package_files()))


def test_a_removed_field_does_not_come_back_with_its_values(engine):
    removed = replaced("schemas/thing.sd", "field colour type string { indexing: attribute | summary }", "")
    engine.deploy(removed)
    assert "colour" not in stored(engine)
    engine.deploy(zipped(package_files()))
    assert "colour" not in stored(engine) and stored(engine)["vector"].array.tolist() == [1, 0, 0, 0]


def test_removing_a_schema_needs_an_override_and_removes_its_documents(engine):
    write(engine, put(engine, "p", {"name": "Ann"}, kind="person"))
    change = ("services.xml", '<document type="person" mode="index"/>', "")
    with pytest.raises(DeployError, match="schema-removal"):
        engine.deploy(replaced(*change))
    engine.deploy(replaced(*change, more=overrides("schema-removal")))
    engine.deploy(zipped(package_files()))
    assert engine.get("id:shop:person::p") is None and engine.tables["person"].count == 0


def test_a_refused_package_changes_nothing(engine):
    with pytest.raises(DeployError):
        engine.deploy(
            zipped(package_files() | {"schemas/thing/x.profile": b"rank-profile x { first-phase { expression: ( } }"})
        )
    assert engine.application.generation == 1 and stored(engine)["stock"] == 3


def test_a_table_that_fails_at_a_committed_write_is_built_anew(engine, monkeypatch):
    whole, table = TextIndex.append, engine.tables["thing"]

    def fails_once(*_):
        monkeypatch.setattr(TextIndex, "append", whole)
        raise OverflowError("no room for a number")

    monkeypatch.setattr(TextIndex, "append", fails_once)
    assert write(engine, put(engine, "x", {"title": "green hat"}), put(engine, "y", {"title": "sun hat"})) == [None] * 2
    new = engine.tables["thing"]
    assert new is not table and stored(engine, "x") == {"title": "green hat"}
    rows = new.texts["title"].word("sun", new.live).rows
    assert [new.ids[row] for row in rows] == ["id:shop:thing::y"]


def test_arrays_of_many_texts_are_stored_found_and_read_again(engine, tmp_path):
    attribute = "field labels type array<string> { indexing: attribute"
    change = ("schemas/thing.sd", attribute, attribute.replace("attribute", "index"))
    engine.deploy(replaced(*change, more=overrides("indexing-change")))
    many = ["red hat"] * 33_000 + ["warm hat", "warm red"]
    assert write(engine, put(engine, "x", {"labels": many}), put(engine, "y", {"labels": ["sun"]})) == [None, None]
    engine.close()
    again = Engine(tmp_path)
    table = again.tables["thing"]
    index, live, row = table.texts["labels"], table.live, table.rows["id:shop:thing::x"]
    assert index.word("sun", live).rows.tolist() == [table.rows["id:shop:thing::y"]]
    assert index.positions(("warm", "hat"), np.array([row])) == [[33_000 * inverted.ELEMENT]]
    assert not len(index.phrase(("hat", "warm"), live).rows)
    assert index.phrase(("red", "hat"), live).counts.tolist() == [33_000]
    again.close()


def test_a_wasteful_table_is_rebuilt(engine, monkeypatch):
    monkeypatch.setattr("local_vespa.index.table.DEAD_ROWS", 20)
    for n in range(30):
        write(engine, put(engine, "a", {"title": f"title {n}", "stock": n}))
    assert len(engine.tables["thing"].ids) < 30 and stored(engine)["stock"] == 29
    table = engine.tables["thing"]
    assert (
        len(table.texts["title"].word("titl", table.live).rows)
        + len(table.texts["title"].word("title", table.live).rows)
        == 1
    )


def test_a_full_disk_refuses_with_507_and_recovers(engine, tmp_path):
    writer = engine.store.writer
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count={pages + 20}")  # SQLite then fails as it does on a full disk
    big = {"title": "large " * 2000}
    outcomes = [write(engine, put(engine, f"big{n}", big))[0] for n in range(40)]
    refused = [n for n, o in enumerate(outcomes) if o is not None]
    assert 0 < len(refused) < 40 and refused[0] > 0
    problem = outcomes[refused[0]]
    assert isinstance(problem, DocumentError) and problem.status == 507 and "NO_SPACE" in problem.message
    assert problem.document_id == f"id:shop:thing::big{refused[0]}"
    table = engine.tables["thing"]
    for n, outcome in enumerate(outcomes):  # what was refused is nowhere, what was acknowledged is everywhere
        id = f"id:shop:thing::big{n}"
        assert (engine.get(id) is None) == (id not in table.rows) == (outcome is not None)
    with pytest.raises(StorageFull):
        engine.prepare(zipped(package_files() | {"models/large.bin": os.urandom(400_000)}))
    assert write(engine, Operation("remove", "id:shop:thing::big0", engine.schema("thing"))) == [None]
    assert write(engine, put(engine, "again", big)) == [None]  # in the room of what was removed
    writer.execute("PRAGMA max_page_count=1000000")
    assert write(engine, put(engine, "more", big)) == [None]
    engine.close()
    again = Engine(tmp_path)
    assert {n for n in range(40) if again.get(f"id:shop:thing::big{n}")} == set(range(1, 40)) - set(refused)
    again.close()


def test_texts_are_stemmed_in_the_language_that_set_language_says(engine, caplog):
    api = DeployApi(engine, 8080)

    def deploy(files):
        path = "/application/v2/tenant/default/prepareandactivate"
        headers = {"content-type": "application/zip"}
        response = api.handle(Request("POST", path, {}, headers, zipped(files), "localhost:8080"))
        return orjson.loads(response.body)["log"]

    def found(text, **more):
        parameters = {"yql": "select title from thing where userInput(@text)", "text": text} | more
        response = SearchApi(engine).handle(Request("GET", "/search/", parameters, {}, b"", "localhost:8080"))
        return orjson.loads(response.body)["root"]["fields"]["totalCount"]

    assert write(engine, put(engine, "a", {"title": "Schuhe und Kleider"})) == [None]
    assert found("schuhen") == 0 and found("schuhen", **{"model.language": "de"}) == 0  # an English text
    files = package_files()
    (entry,) = deploy(files)
    assert entry["level"] == "WARNING" and "nothing sets the language" in entry["message"]
    assert "nothing sets the language" in caplog.text
    first = b'field language type string { indexing: (input language || "de") | set_language }\n    field title'
    files["schemas/thing.sd"] = files["schemas/thing.sd"].replace(b"field title", first, 1)
    assert deploy(files) == []  # and the indexes are built anew
    assert found("schuhen", **{"model.language": "de-AT"}) == 1 and found("schuhen", language="de_AT") == 1
    assert found("schuhen") == 0  # an English query
    assert write(engine, put(engine, "b", {"title": "Schuhe", "language": "en"})) == [None]
    assert found("schuhen", **{"model.language": "de"}) == 1
    assert found("Schuhe", **{"model.language": "und"}) == 1  # neither stemmed nor split: the English one


def test_a_full_disk_refuses_a_deployment_with_507_and_nothing_of_it_is_done(engine):
    api, writer, before = DeployApi(engine, 8080), engine.store.writer, engine.application.generation
    assert write(engine, put(engine, "kept", {"title": "kept", "colour": "red"})) == [None]

    def deploy(package):
        path = "/application/v2/tenant/default/prepareandactivate"
        response = api.handle(Request("POST", path, {}, {"content-type": "application/zip"}, package, "localhost:8080"))
        return response.status, orjson.loads(response.body)

    large = zipped(package_files() | {"models/large.bin": os.urandom(400_000)})
    writer.execute(f"PRAGMA max_page_count={writer.execute('PRAGMA page_count').fetchone()[0] + 20}")
    status, answer = deploy(large)
    assert status == 507 and answer["error-code"] == "OUT_OF_CAPACITY"
    assert engine.application.generation == before and not writer.in_transaction
    assert write(engine, put(engine, "small", {"title": "small"})) == [None]
    writer.execute("PRAGMA max_page_count=1000000")
    assert deploy(large)[0] == 200
    # full only when the prepared package becomes active: the documents are to lose a field, and do not
    files = package_files()
    colour = b"field colour type string { indexing: attribute | summary }"
    files["schemas/thing.sd"] = files["schemas/thing.sd"].replace(colour, b"")
    session = engine.prepare(zipped(files))
    activate = engine.store.activate

    def fails(generation):
        activate(generation)
        writer.execute("PRAGMA max_page_count=1")
        engine.store.put("id:shop:thing::filler", "thing", b"x" * 1_000_000, b"")

    engine.store.activate = fails
    with pytest.raises(StorageFull):
        engine.activate(session)
    engine.store.activate = activate
    writer.execute("PRAGMA max_page_count=1000000")
    assert "colour" in engine.application.schemas["thing"].fields and not writer.in_transaction
    assert engine.get("id:shop:thing::kept") == {"title": "kept", "colour": "red"}
    assert engine.activate(session).generation == session
    assert engine.get("id:shop:thing::kept") == {"title": "kept"}


def test_readers_see_whole_documents(engine):
    """Every write sets three fields to one number: a reader that sees two numbers saw half a document."""
    stop = threading.Event()
    torn: list[object] = []
    seen: set[int] = set()

    def read():
        while not stop.is_set():
            fields = stored(engine)
            with engine.lock.shared():
                table = engine.tables["thing"]
                row = table.rows["id:shop:thing::a"]
                searched = {int(table.columns[c].values[row]) for c in ("stock", "added", "price")}
                live = table.live[row]
            numbers = {fields["stock"], fields["added"], int(fields["price"]), int(fields["vector"].array[3])}
            seen.add(fields["stock"])
            if len(numbers) != 1 or len(searched) != 1 or not live:
                torn.append((numbers, searched))

    def whole(n):
        return put(engine, "a", {"stock": n, "added": n, "price": float(n), "vector": [0.0, 0.0, 0.0, float(n)]})

    write(engine, whole(0))
    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for n in range(1, 120):
        assert write(engine, whole(n)) == [None]
    stop.set()
    for reader in readers:
        reader.join()
    assert not torn and len(seen) > 5
