"""What an index holds: its model and schema, the journal of what was fed, what it lost, and whether it is right."""
