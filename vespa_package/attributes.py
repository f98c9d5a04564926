"""Memory of attribute fields by the formulas of docs.vespa.ai/en/content/attributes.html#sizing."""

from __future__ import annotations

from vespa_package.schema import Field, Schema

WIDTH = {"bool": 1 / 8, "byte": 1.0, "int": 4.0, "float": 4.0, "long": 8.0, "double": 8.0, "string": 1.0}
ENUM, POSTING_INDEX, MULTIVALUE_INDEX = 4.0, 4.0, 4.0
UNIQUE = {"item_id"}  # one value an item; the values of other strings are shared by many
LENGTH, VALUES = 12.0, 3.0  # letters of a unique string, values of an array: assumptions


def bytes_per_item(field: Field) -> float:
    """Bytes an item of one scalar or array attribute, before the resize factor 6/5; 0 for other fields.

    Unique values cost nothing an item where many items share them.
    """
    many = field.type.startswith("array<")
    kind = field.type.removeprefix("array<").removesuffix(">")
    if kind not in WIDTH or not field.is_attribute:
        return 0.0
    fast = "fast-search" in field.options
    data = ENUM if kind == "string" or fast else WIDTH[kind]
    size = MULTIVALUE_INDEX + VALUES * data if many else data
    if fast:
        size += VALUES * 8 if many else 4
    if field.name in UNIQUE:
        size += WIDTH[kind] + LENGTH + 4 + ENUM + (POSTING_INDEX if fast else 0)
    return size


def filter_bytes(schema: Schema) -> float:
    """Bytes an item of all scalar and array attributes of a schema, before the resize factor."""
    return sum(bytes_per_item(field) for field in schema.fields.values())
