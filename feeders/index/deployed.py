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

from feeders.operations import document_path
from feeders.transport import HEADERS, message_of
from mrse_model.errors import InputError
from mrse_model.serving.exported_model import ExportedModel
from mrse_model.serving.manifest import Manifest
from mrse_model.serving.texts import token_lists
from vespa_package.fields import INT8, MODEL_FIELDS, DocumentType

VECTORS = tuple(name for name in MODEL_FIELDS if name != "model_version")
PROBE = "red summer dress, size 38"  # any text: two trained models do not agree on its vector
ANSWER_SECONDS = 20  # a server that hangs is told apart from one that works within this time
METRIC_PRECISION = 0.003  # of a closeness; bfloat16 cells and a query's rounding are below 0.001
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


def check_metric(app: Vespa, model: ExportedModel) -> bool:
    """Raises InputError where the deployed `embedding` has another distance metric than the model is made for. False
    where that does not show: no document has a vector, or the profile `ann` orders by another field.

    Vespa does not name a field's metric, but `ann` gives a hit's cosine and its closeness, and how the one follows from
    the other is the metric (Vespa, nearest neighbour search: prenormalized-angular is 1 / (1 + (1 - cosine))).
    """
    probe = -model.query_vectors([PROBE])[0]  # turned away from all items: near cosine 1 the metrics are alike
    yql = "select item_id from item where {targetHits: 1}nearestNeighbor(embedding, q)"
    root = _search(app, {"yql": yql, "hits": 1, "ranking": "ann", "input.query(q)": probe.tolist()})
    fields = [hit.get("fields", {}).get("matchfeatures", {}) for hit in root.get("children", [])]
    if not fields or "closeness(field,embedding)" not in fields[0]:
        return False
    cosine, closeness = fields[0]["similarity"], fields[0]["closeness(field,embedding)"]
    if abs(closeness - 1 / (2 - cosine)) > METRIC_PRECISION:
        raise InputError(
            f"the distance metric deployed at {app.end_point} is not {model.manifest.distance_metric} "
            f"(cosine {cosine:.3f}, closeness {closeness:.3f})",
            field="embedding",
            fix=f"Write distance-metric: {model.manifest.distance_metric} in schemas/item.sd, and run: mrse deploy",
        )
    return True


def second_set(app: Vespa, manifest: Manifest) -> bool:
    """Whether a second set of vectors is deployed: a migration is under way."""
    with app.syncio() as session:
        return _dry_run(session, {"embedding_next": {"values": "0000" * manifest.dims}})[0] == 200


def check_no_migration(app: Vespa, manifest: Manifest) -> None:
    """Raises InputError while a migration to another model is under way."""
    if second_set(app, manifest):
        raise InputError(
            f"{app.end_point}: a migration to another model is under way, and items fed now would lack its vectors",
            fix="Finish it (mrse migrate); until then: mrse feed items --next-models, so that items get both",
        )


def _zeros(kind: str, dims: int) -> dict[str, str]:
    """The value of a vector field, as hex; dims: as the model makes it, whatever the field says."""
    digits = {"int8": 2, "bfloat16": 4, "float": 8, "double": 16}
    found = re.match(r"tensor<(\w+)>", kind)
    return {"values": "0" * digits.get(found[1] if found else "", 4) * dims}


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


def count(app: Vespa, yql: str, **parameters: str) -> int:
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
