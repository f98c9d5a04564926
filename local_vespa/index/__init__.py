"""What a query reads, in memory: attributes, text indexes and vector indexes. Disposable; the truth is the store."""
