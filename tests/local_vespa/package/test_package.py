"""Packages: what is read, and what is refused in Vespa's words."""

import contextlib
import datetime
import io
import random
import zipfile

import pytest

from local_vespa.application import Application
from local_vespa.errors import DeployError
from local_vespa.package.reader import files_of_zip, read_package
from tests.helpers.small_app import package_files, zipped


def with_file(path, text):
    return package_files() | {path: text.encode()}


def refusal(files):
    with pytest.raises(DeployError) as e:
        Application(zipped(files))
    return str(e.value)


def test_the_application_is_read():
    package = read_package(package_files())
    assert list(package.schemas) == ["thing", "person"] or set(package.schemas) == {"thing", "person"}
    thing = package.schemas["thing"]
    assert thing.fields["vector"].hnsw == (8, 200) and thing.fields["vector"].metric == "prenormalized-angular"
    assert thing.summaries["short"] == {"title": "title", "price": "price"}
    profile = package.profiles["thing"]["two"]
    assert profile.second.count == 2 and list(profile.inputs) == ["q", "person", "boost"]
    assert float(profile.inputs["boost"].default.array) == 0.5
    assert package.query_profiles["meaning"].fields["maxHits"] == "500"
    assert package.models == {"text": "models/text.onnx", "tower": "models/tower.onnx"}


def test_a_package_in_one_folder_is_unwrapped():
    assert "services.xml" in files_of_zip(zipped({f"application/{p}": d for p, d in package_files().items()}))


@pytest.mark.parametrize("path", ["../evil", "/etc/passwd", "a/../../b", "c:\\x", "a\\..\\..\\b"])
def test_paths_out_of_the_package_are_refused(path):
    with pytest.raises(DeployError, match="leads out of the package"):
        files_of_zip(zipped({path: b"x"}))


def test_zip_bombs_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * (80 << 20))
    with pytest.raises(DeployError, match="unpacks to"):
        files_of_zip(buffer.getvalue())


def test_what_is_no_zip_is_refused():
    with pytest.raises(DeployError, match="not a zip"):
        files_of_zip(b"hello")


def test_entities_are_refused():
    text = '<!DOCTYPE a [<!ENTITY b "c">]><services version="1.0"/>'
    assert "DOCTYPE" in refusal(with_file("services.xml", text))


def services(old, new):
    text = package_files()["services.xml"].decode()
    assert old in text
    return with_file("services.xml", text.replace(old, new))


def profile(text):
    return with_file("schemas/thing/bad.profile", f"rank-profile bad {text}")


def field(text):
    return with_file("schemas/person.sd", f"schema person {{ document person {{ {text} }} }}")


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (field("field a type map<string,int> { indexing: summary }"), "fields of type map<string,int>"),
        (
            field("field a type string { indexing: summary | lowercase | index }"),
            "'lowercase' in an indexing statement",
        ),
        (field("field a type string { indexing: lowercase | set_language }"), "'lowercase' in an indexing statement"),
        (field("field a type string { indexing: input b | set_language }"), "input field 'b' does not exist"),
        (
            field("field a type string { indexing: (input a || 'en') | set_language | summary }"),
            "'summary' in an indexing statement",
        ),
        (field("field a type int { indexing: index }"), "index is only possible for strings and tensors"),
        (field("field a type tensor<float>(x[2]) { attribute { distance-metric: geodegrees } }"), "geodegrees"),
        (field("field a type string { indexing: attribute \n match { gram } }"), "'match: gram'"),
        (field("struct s { }"), "'struct' in a document"),
        (profile("inherits nothing { }"), "inherits 'nothing'"),
        (profile("{ first-phase { expression: 1 + } }"), "Could not parse"),
        (profile("{ first-phase { expression: attribute(nothing) } }"), "'nothing' is not an attribute"),
        (profile("{ first-phase { expression: fieldMatch(title) } }"), "the rank feature fieldMatch(title)"),
        (profile("{ first-phase { expression: attribute(vector) } }"), "must produce a double"),
        (profile("{ first-phase { expression: bm25(price) } }"), "not an index field"),
        (
            profile("{ first-phase { expression: 1 } second-phase { expression: 1 \n rerank-count: ten } }"),
            "is a whole number",
        ),
        (profile("{ first-phase { expression: 1 \n rank-score-drop-limit: low } }"), "is a number"),
        (services("<max-tokens>8", "<max-tokens>many"), "max-tokens is a number"),
        (
            services("<documents>", "<documents garbage-collection='true' garbage-collection-interval='often'>"),
            "in seconds",
        ),
        (field("field a type string { indexing: attribute \n weight: heavy }"), "is a whole number"),
        (profile("{ match-phase { attribute: price \n max-hits: 10 } }"), "'match-phase' in a rank profile"),
        (
            profile("inherits base { first-phase { expression: sum(query(q) * attribute(parts)) } }"),
            "dimension 'x' differs",
        ),
        (profile("{ first-phase { expression: sum(onnx(nothing).a) } }"), "no onnx-model 'nothing'"),
        (services("hugging-face-tokenizer", "colbert-embedder"), "colbert-embedder"),
        (services("models/text.onnx", "models/none.onnx"), "not in the package"),
        (services("<search/>", "<search><chain id='x'/></search>"), "search chains"),
        (services('type="person"', 'type="nobody"'), "Could not find schema 'nobody'"),
        ({"a": b"x"}, "services.xml does not exist"),
    ],
)
def test_what_is_not_supported_is_refused_at_deploy(files, problem):
    assert problem in refusal(files)


@pytest.mark.parametrize(
    ("statement", "fields", "language"),
    [
        ("(input a || 'de') | set_language", {}, "de"),
        ("(input a || 'de') | set_language", {"a": "fr-CA"}, "fr"),
        ('input a || input b || "nl" | set_language', {"b": "no"}, "nb"),
        ("'pt' | set_language", {"a": "fr"}, "pt"),
        ("set_language", {"a": "it"}, "it"),
        ("summary | set_language | attribute", {"a": "it"}, "it"),
        ("set_language", {}, "en"),  # where Vespa would guess
        ("set_language", {"a": "no language"}, "en"),
        ("set_language", {"a": "12"}, "en"),
    ],
)
def test_the_language_of_a_documents_texts(statement, fields, language):
    text = (
        "field before type string { indexing: index } field b type string { } "
        f"field a type string {{ indexing: {statement} }} field after type string {{ indexing: index }}"
    )
    known = Application(zipped(field(text))).schemas["person"].fields
    assert known["before"].language is None  # Vespa's scripts run in the order of the fields
    assert known["after"].language.language(fields) == language


def test_a_package_that_sets_no_language_is_deployed_with_a_warning():
    (warning,) = Application(zipped(package_files())).warnings
    assert "'thing': nothing sets the language of title" in warning and "set_language" in warning
    files = package_files()
    first = b'field language type string { indexing: (input language || "en") | set_language }\n    field title'
    files["schemas/thing.sd"] = files["schemas/thing.sd"].replace(b"field title", first, 1)
    assert Application(zipped(files)).warnings == []


def test_a_refusal_names_file_and_line():
    text = "schema person {\n document person {\n  field a type reference<thing> { indexing: attribute }\n }\n}"
    assert refusal(with_file("schemas/person.sd", text)).startswith(
        "Invalid application package: schemas/person.sd:3: "
    )


def test_profiles_that_inherit_in_a_circle_are_refused():
    files = with_file("schemas/thing/x.profile", "rank-profile x inherits y { }\nrank-profile y inherits x { }")
    assert "inherits itself" in refusal(files)


def test_documents_inherit_fields():
    files = field("field name type string { indexing: attribute }")
    files["schemas/person.sd"] = (
        b"schema person { document person inherits thing { field extra type int { indexing: attribute } } }"
    )
    schema = read_package(files).schemas["person"]
    assert {"title", "price", "extra"} <= schema.fields.keys() and schema.fieldsets == {"default": ("title",)}


def test_overrides_end():
    def overrides(days):
        until = datetime.date.today() + datetime.timedelta(days=days)
        text = f"<validation-overrides><allow until='{until}'>schema-removal</allow></validation-overrides>"
        return read_package(with_file("validation-overrides.xml", text)).overrides

    assert overrides(3) == {"schema-removal"} and overrides(-1) == set()
    with pytest.raises(DeployError, match="too far in the future"):
        overrides(60)


@pytest.mark.parametrize("seed", range(60))
def test_wrong_bytes_in_a_zip_are_refused_or_read(seed):
    r = random.Random(seed)
    data = bytearray(zipped(package_files()))
    for _ in range(4):
        at = r.randrange(len(data) - 200, len(data)) if seed % 2 else r.randrange(len(data))
        data[at : at + r.randint(0, 3)] = r.randbytes(r.randint(0, 3))
    with contextlib.suppress(DeployError):
        files_of_zip(bytes(data))
