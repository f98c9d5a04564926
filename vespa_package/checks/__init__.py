"""Checks of an application package, one module a part: models, schemas, services, the columns of items."""
