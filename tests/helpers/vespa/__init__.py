"""What the tests that ask Vespa's own code share: planted defects, expected values, the job that it runs."""
