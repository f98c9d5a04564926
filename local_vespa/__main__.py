"""`python -m local_vespa --port 8080 --data DIR`: runs the engine."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from .server import serve


def main() -> int:
    """Reads the command line and serves until it is stopped; 2 where the data folder cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m local_vespa", description="An embedded engine with Vespa's HTTP API."
    )
    parser.add_argument("--port", type=int, default=8080, help="queries, documents and deployments (default 8080)")
    parser.add_argument("--deploy-port", type=int, help="a second port for tools that deploy to 19071")
    parser.add_argument("--host", default="127.0.0.1", help="interface to bind (default 127.0.0.1: this machine only)")
    parser.add_argument("--data", type=Path, default=Path("local_vespa_data"), help="folder of the database")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        serve(options.host, options.port, options.data, options.deploy_port)
    except RuntimeError as e:
        print(e, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
