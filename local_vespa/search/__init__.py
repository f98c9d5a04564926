"""A query: its parameters, its plan, and the execution of the plan."""
