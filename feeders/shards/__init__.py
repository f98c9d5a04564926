"""Vectors of a catalogue as Parquet shards: made on many cores or machines, fed by one."""
