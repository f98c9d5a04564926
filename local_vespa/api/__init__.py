"""HTTP in, JSON out: one module for each of Vespa's APIs."""
