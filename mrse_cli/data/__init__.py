"""Commands that make the Parquet files that the others read."""
