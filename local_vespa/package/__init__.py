"""The application package: schemas, rank profiles, services and query profiles, read into data."""
