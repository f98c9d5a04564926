"""Is the model that the server embeds queries with the one that the items are encoded with? What does the index hold?

Vespa does not say which model version it runs, so it is made to show: the deployed `query_text` graph is evaluated over
`/model-evaluation/v1/` on a probe and must give this export's vector. That needs no other part of the package to be
right.
"""

from __future__ import annotations

import re
from typing import Any, cast

import httpr
import numpy as np
import orjson
from tokenizers import Tokenizer
from vespa.application import Vespa, VespaSync

from feeders.encoding import CELLS, from_hex
from feeders.operations import document_path
from feeders.transport import HEADERS, message_of
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from mrse_model.serving.manifest import Manifest
from mrse_model.serving.texts import token_lists
from vespa_package.fields import INT8, MODEL_FIELDS, DocumentType
from vespa_package.schema import Field, read_schema

DIGITS = {cells: 2 * np.dtype(kind).itemsize for cells, kind in CELLS.items()}  # of a cell as hex
CELLS_OF_DIGITS = {digits: cells for cells, digits in DIGITS.items()}
VECTORS = tuple(name for name in MODEL_FIELDS if name != "model_version")
PROBE = "red summer dress, size 38"  # any text: two trained models do not agree on its vector
ANSWER_SECONDS = 20  # a server that hangs is told apart from one that works within this time
METRIC_PRECISION = 0.01  # of a cosine's distance, 1 where others have 1.41 or 1.57; cells of bfloat16 round to 0.004
MIN_COSINE = 0.9995  # cosine; one model on two machines is above 0.999999, two trainings of the same data are far below


def check_deployed(app: Vespa, model: ExportedModel) -> None:
    """Raises InputError when nothing answers, when no model is deployed, or when it is not `model`."""
    version = model.manifest.model_version
    fix = f"Deploy the application package whose models folder holds {version}: mrse deploy"
    tokenizer = Tokenizer.from_file(str(model.folder / model.manifest.tokenizer.file))
    [ids] = token_lists(tokenizer, [PROBE], model.manifest.query_tokens)
    # Plain nested lists: Vespa's parser refuses a literal with its own type where the model's sizes are open.
    inputs = {"input_ids": f"[{ids}]", "attention_mask": f"[{[1] * len(ids)}]"}
    with app.syncio() as session:
        status, body = get(
            session, "/model-evaluation/v1/query_text/embedding/eval", inputs | {"format.tensors": "short-value"}
        )
    if status == 404:
        raise InputError(f"{app.end_point} serves no model query_text", field="model_version", fix=fix)
    if status != 200 or not (isinstance(body, list) or (isinstance(body, dict) and "values" in body)):
        raise InputError(f"{app.end_point} cannot evaluate its model: status {status}, {str(body)[:200]}", fix=fix)
    theirs = np.array(body["values"] if isinstance(body, dict) else body, np.float32).ravel()
    ours = model.query_vectors([PROBE])[0]
    alike = float(theirs @ ours) / max(float(np.linalg.norm(theirs)), 1e-9) if theirs.shape == ours.shape else 0.0
    if alike < MIN_COSINE:
        raise InputError(
            f"the model deployed at {app.end_point} is not {version} (cosine of a probe's two vectors: {alike:.3f})",
            file=model.folder / "manifest.json",
            field="model_version",
            fix=fix,
        )


def check_fields(app: Vespa, doctype: DocumentType, manifest: Manifest) -> None:
    """Raises InputError where the deployed schema has not the fields that this one is fed with, has them in other
    sizes, or has a vector field of a model that a feed by this one would leave empty. Nothing is written: Vespa checks
    documents and drops them (dryRun).
    """
    fix = f"Deploy the package that has {doctype.file}: mrse deploy; or give the deployed one with --app"
    mine = {name: _zeros(doctype.fields[name], manifest.dims) for name in VECTORS if name in doctype.fields}
    with app.syncio() as session:
        status, words = _dry_run(session, mine | {"model_version": manifest.model_version})
        if status == 400:
            raise InputError(f"the schema deployed at {app.end_point} differs: {words}", file=doctype.file, fix=fix)
        for name in (name for name in VECTORS if name not in doctype.fields):
            cells = "00" * manifest.dims * (1 if name.endswith(INT8) else 2)
            if _dry_run(session, {name: {"values": cells}})[0] == 200:
                raise InputError(
                    f"the schema deployed at {app.end_point} has the field, and this feed would leave it empty",
                    file=doctype.file,
                    field=name,
                    fix=fix,
                )


def check_metrics(app: Vespa, doctype: DocumentType, model: ExportedModel) -> bool:
    """Raises InputError where a vector field is deployed with other cells than the package's, or with another distance
    metric than the model's or the package's. False where one does not show: no document has a vector in it yet, or no
    input of the profile `ann` fits it.

    Vespa does not name a field's metric, but `distanceThreshold` shows how far a document is from a query vector that
    is made for the purpose: at a right angle to its vector, or with half of its bits turned over.
    """
    schema, shown = read_schema(doctype.file), True
    inputs = schema.inputs(schema.profiles["ann"]) if "ann" in schema.profiles else {}
    for field in schema.fields.values():
        made = field.name.removesuffix(INT8) in MODEL_FIELDS
        metric = model.manifest.distance_metric if made and field.metric else field.metric
        if metric not in ("prenormalized-angular", "hamming"):
            continue
        fitting = (name for name, kind in inputs.items() if _size(kind) == _size(field.type))
        given = next(fitting, None)
        found = _some_vector(app, field, given, _size(field.type)) if given else None
        if given is None or found is None:
            shown = False
            continue
        item_id, vector, cells = found
        if field.in_document and (wanted := _cells(field.type)) != cells:
            raise InputError(
                f"the schema deployed at {app.end_point} has {cells} cells in this field, and the package {wanted}",
                file=field.file,
                field=field.name,
                fix="Deploy the package: mrse deploy; or give the deployed one with --app",
            )
        query, distance, near = _aside(metric, vector)
        ends = []
        for limit in (distance - near, distance + near):
            options = f"targetHits: 1, approximate: false, distanceThreshold: {limit}"
            near_by = f"({{{options}}}nearestNeighbor({field.name}, {given}))"
            yql = f"select item_id from item where item_id contains @item and {near_by}"
            ends.append(count(app, yql, item=item_id, ranking="ann", **{f"input.query({given})": query.tolist()}))
        if ends[0] or not ends[1]:
            raise InputError(
                f"the distance metric deployed at {app.end_point} is not {metric} ({item_id!r} should be at distance "
                f"{distance:g} of a query)",
                field=field.name,
                fix=f"Write distance-metric: {metric} in schemas/item.sd, and run: mrse deploy",
            )
    return shown


def _size(kind: str) -> int:
    """Cells of a dense tensor of one dimension, 0 for any other type."""
    found = re.fullmatch(r"tensor(?:<\w+>)?\(\w+\[(\d+)\]\)", kind)
    return int(found[1]) if found else 0


def _cells(kind: str) -> str:
    """The cell type of a tensor."""
    found = re.match(r"tensor<(\w+)>", kind)
    return found[1] if found else "double"


def _some_vector(app: Vespa, field: Field, given: str, size: int) -> tuple[str, np.ndarray, str] | None:
    """A document that has the field, by its item_id, its vector there, float64 [size], and the type of the cells that
    it was fed in; None where there is none.
    """
    yql = f"select item_id from item where {{targetHits: 1}}nearestNeighbor({field.name}, {given})"
    root = _search(app, {"yql": yql, "hits": 1, "ranking": "ann", f"input.query({given})": [1.0] * size})
    hits = [hit["fields"]["item_id"] for hit in root.get("children", []) if "item_id" in hit.get("fields", {})]
    bits = re.match(r"input (\w+) \| binarize \| pack_bits\b", field.indexing)
    source = field.name if field.in_document else bits[1] if bits else ""
    if not hits or not source:
        return None
    with app.syncio() as session:
        path = document_path("item", hits[0])
        status, body = get(session, path, {"fieldSet": f"item:{source}", "format.tensors": "hex-value"})
    value = body.get("fields", {}).get(source) if status == 200 and isinstance(body, dict) else None
    value = value.get("values") if isinstance(value, dict) else value
    cells: str | None = _cells(field.type)
    if isinstance(value, str):
        cells = CELLS_OF_DIGITS.get(len(value) // (size if field.in_document else 8 * size))
        value = from_hex(value, cells) if cells else None
    if value is None or cells is None:
        return None
    vector = np.array(value, np.float64)
    return hits[0], vector if field.in_document else np.packbits(vector > 0).view(np.int8).astype(np.float64), cells


def _aside(metric: str, vector: np.ndarray) -> tuple[np.ndarray, float, float]:
    """A query vector that is far from this one in another way by each metric: its cells, its distance by `metric`, and
    how exactly that holds.
    """
    if metric == "hamming":
        half = len(vector) // 2
        return np.r_[-1 - vector[:half], vector[half:]], 8.0 * half, 0.5
    other = np.random.default_rng(0).normal(size=len(vector))
    other -= other @ vector / (vector @ vector) * vector
    query = other * np.linalg.norm(vector) / np.linalg.norm(other)
    if np.array_equal(vector, np.rint(vector)):  # Vespa cuts the query's cells to the field's int8
        query = np.rint(query)
    return query, float(1 - query @ vector / (query @ query)), METRIC_PRECISION


def second_set(app: Vespa, manifest: Manifest) -> bool:
    """Whether a second set of vectors is deployed: a migration is under way."""
    with app.syncio() as session:
        return _dry_run(session, {"embedding_next": {"values": "0000" * manifest.dims}})[0] == 200


def check_no_migration(app: Vespa, manifest: Manifest) -> None:
    """Raises InputError while a migration to another model is under way."""
    if second_set(app, manifest):
        raise migration_under_way(app)


def migration_under_way(app: Vespa) -> InputError:
    """Why items cannot be fed as always."""
    return InputError(
        f"{app.end_point}: a migration to another model is under way, and items fed now would lack its vectors",
        fix="Finish it (mrse migrate); until then: mrse feed items --next-models, so that items get both",
    )


def _zeros(kind: str, dims: int) -> dict[str, str]:
    """The value of a vector field, as hex; dims: as the model makes it, whatever the field says."""
    return {"values": "0" * DIGITS.get(_cells(kind), 4) * dims}


def _dry_run(session: VespaSync, fields: dict[str, Any]) -> tuple[int, str]:
    client = cast(httpr.Client, session.http_client)
    url = f"{session.app.end_point}{document_path('item', 'mrse-dry-run')}?dryRun=true"
    try:
        response = client.post(url, content=orjson.dumps({"fields": fields}), headers=HEADERS, timeout=ANSWER_SECONDS)
    except Exception as error:  # httpr's exceptions share no base class
        raise _nobody(session.app, error) from None
    return response.status_code, message_of(response.content)


def indexed(app: Vespa, version: str, suffix: str = "") -> tuple[int, int]:
    """How many items the index holds: (with vectors of this model version, without), in the fields with this suffix.
    Raises InputError where such fields are not deployed.
    """
    yql = f"select item_id from item where model_version{suffix} contains @version"
    ours = count(app, yql, version=version)
    return ours, count(app, "select item_id from item where true") - ours


def count(app: Vespa, yql: str, **parameters: Any) -> int:
    """How many documents match. Raises InputError with Vespa's words, or when there is no answer."""
    root = _search(app, {"yql": yql, "hits": 0, "ranking": "unranked", **parameters})
    try:
        if errors := root.get("errors"):
            raise KeyError(errors[0].get("message"))
        return int(root["fields"]["totalCount"])
    except (KeyError, TypeError) as error:  # Vespa's words, or no count
        raise _uncounted(app, error.args[0] if isinstance(error, KeyError) else str(root)[:200]) from None


def _search(app: Vespa, body: dict[str, Any]) -> dict[str, Any]:
    """The root of a search's answer. Raises InputError where there is no answer, or none of a search."""
    try:
        with app.syncio(num_retries_429=1) as session:  # pyvespa's own query() would wait two minutes
            content = orjson.dumps({"timeout": "10s", **body})
            url = app.search_end_point
            reply = session.http_client.post(url, content=content, headers=HEADERS, timeout=ANSWER_SECONDS)
    except Exception as error:  # httpr's exceptions share no base class
        raise _nobody(app, error) from None
    try:
        return dict(orjson.loads(reply.content)["root"])
    except (ValueError, KeyError, TypeError):
        raise _uncounted(app, message_of(reply.content)) from None


def _uncounted(app: Vespa, words: str) -> InputError:
    return InputError(f"{app.end_point} cannot count its items: {words}", fix="Deploy first: mrse deploy")


def get(session: VespaSync, path: str, parameters: dict[str, str]) -> tuple[int, Any]:
    """GET with pyvespa's connection settings: status, and the JSON body or its text. Raises InputError if none
    answers.
    """
    assert session.http_client is not None  # it is open
    try:
        response = session.http_client.get(session.app.end_point + path, params=parameters, timeout=ANSWER_SECONDS)
    except Exception as error:  # httpr's exceptions share no base class
        raise _nobody(session.app, error) from None
    try:
        return response.status_code, response.json()
    except (ValueError, RuntimeError):
        return response.status_code, response.text


def _nobody(app: Vespa, error: Exception) -> InputError:
    fix = "Start Vespa (mrse serve-local) or give another --endpoint"
    return InputError(f"nothing answers at {app.end_point} ({error})", fix=fix)
