"""Write into Vespa: items to vectors to documents, resumable, versioned."""
