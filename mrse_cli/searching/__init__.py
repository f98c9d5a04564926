"""Commands that read from Vespa: search, explain, serve."""
