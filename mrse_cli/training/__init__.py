"""Commands from Parquet to a model, its measurement and its export."""
