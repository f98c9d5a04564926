"""Studies: the paper's experiments and its open questions, each a list of variants, a table, a plot and a log entry."""
