"""All problems of an application package that can be found with no server and no Java."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from mrse_model.errors import InputError
from mrse_model.serving.manifest import Manifest
from vespa_package.bundled import require_package
from vespa_package.checks.items import check_items
from vespa_package.checks.models import check_models
from vespa_package.checks.schemas import check_item_schema, check_language, check_mix, check_profiles
from vespa_package.checks.services import check_query_language, check_query_profiles, check_services
from vespa_package.fields import DocumentType
from vespa_package.schema import read_schemas


def validate(app: str | Path, items: str | Path | None = None, title: str = "title") -> list[InputError]:
    """Every problem between manifest, schemas, services, query profiles and Parquet columns; [] if there is none."""
    app = Path(app)
    try:
        require_package(app)
    except InputError as error:
        return [error]
    problems: list[InputError] = []

    def collect(check: Callable[[], Iterable[InputError]]) -> None:
        try:
            problems.extend(check())
        except InputError as error:  # the file cannot be read at all: the other checks still run
            problems.append(error)

    manifest = None
    for check_hashes in (True, False):  # a changed file is one problem, not the end of the search for others
        try:
            manifest = Manifest.load(app / "models", check_hashes=check_hashes)
            break
        except InputError as error:
            problems.append(error)
    try:
        schemas = read_schemas(app)
        if "item" not in schemas:
            raise InputError("no schema item", file=app / "schemas", fix="Documents are fed as type item: add item.sd")
    except InputError as error:
        return [*problems, error]
    if manifest is not None:
        loaded = manifest
        collect(lambda: check_models(app, loaded))
        collect(lambda: check_item_schema(schemas["item"], loaded))
        for schema in schemas.values():
            collect(lambda schema=schema: check_profiles(schema, app, loaded))  # type: ignore[misc]
        collect(lambda: check_services(app, schemas, loaded))
        collect(lambda: check_query_profiles(app, schemas, loaded))
    if items is not None:
        doctype = DocumentType.of(schemas["item"])
        collect(lambda: check_items(Path(items), doctype, title))
    return list({str(problem): problem for problem in problems}.values())


def warnings(app: str | Path) -> list[InputError]:
    """What is allowed, and probably not meant. For a package without problems."""
    schemas = read_schemas(Path(app))
    found = [warning for schema in schemas.values() for warning in check_language(schema)]
    found += [warning for schema in schemas.values() for warning in check_mix(schema, Path(app) / "models")]
    return [*found, *check_query_language(Path(app), schemas)]
