"""An embedded engine that deploys a Vespa application package and speaks Vespa's HTTP API in one process."""
