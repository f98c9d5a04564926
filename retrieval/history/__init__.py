"""A user's history: read from Vespa, its clicked items' vectors, and what the query tower and the queues make of it."""
