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
SAME = 0.9995  # cosine; one model on two machines is above 0.999999, two trainings of the same data are far below


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
    if alike < SAME:
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
            raise InputError(f"the schema deployed at {app.end_point} is another: {words}", file=doctype.file, fix=fix)
        for name in (name for name in VECTORS if name not in doctype.fields):
            cells = "00" * manifest.dims * (1 if name.endswith(INT8) else 2)
            if _dry_run(session, {name: {"values": cells}})[0] == 200:
                raise InputError(
                    f"the schema deployed at {app.end_point} has the field, and this feed would leave it empty",
                    file=doctype.file,
                    field=name,
                    fix=fix,
                )


def second_set(app: Vespa, manifest: Manifest) -> bool:
    """Whether a second set of vectors is deployed: a migration is under way."""
    with app.syncio() as session:
        return _dry_run(session, {"embedding_next": {"values": "0000" * manifest.dims}})[0] == 200


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
    """How many documents match. Raises InputError with Vespa's words, or when nobody answers."""
    body = {"yql": yql, "hits": 0, "ranking": "unranked", "timeout": "10s", **parameters}
    try:
        with app.syncio(num_retries_429=1) as session:  # pyvespa's own query() would wait two minutes
            content = orjson.dumps(body)
            url = app.search_end_point
            reply = session.http_client.post(url, content=content, headers=HEADERS, timeout=ANSWER_SECONDS)
            root = orjson.loads(reply.content)["root"]
            if errors := root.get("errors"):
                raise KeyError(errors[0].get("message"))
            return int(root["fields"]["totalCount"])
    except (ValueError, KeyError, TypeError) as error:  # no JSON, no count, or Vespa's words
        words = error.args[0] if isinstance(error, KeyError) else message_of(reply.content)
        raise InputError(f"{app.end_point} cannot count its items: {words}", fix="Deploy first: mrse deploy") from None
    except Exception as error:  # httpr's exceptions share no base class
        raise _nobody(app, error) from None


def get(session: VespaSync, path: str, parameters: dict[str, str]) -> tuple[int, Any]:
    """GET with pyvespa's connection settings: status, and the JSON body or its text. Raises InputError if nobody
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
