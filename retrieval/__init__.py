"""Read from Vespa: query vectors, behaviour, recall queues."""
