"""Changes as they happen: from a folder of drops, a stream of lines or a Kafka topic into the index, in seconds."""
