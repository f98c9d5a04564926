"""`mrse serve`: the HTTP service that a shop puts behind its site (docs/serving.md)."""
