"""How good a ranking is: exact search, TREC files, measures, intervals and paired tests, reports."""
