"""kill -9 in the middle of a feed: the same command resumes, and every item arrives."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
ITEMS = 400


def test_a_killed_feed_goes_on(vespa, package, tmp_path) -> None:
    file = tmp_path / "items.parquet"
    ids = [f"i{n}" for n in range(ITEMS)]
    pq.write_table(pa.table({"item_id": ids, "title": [f"red dress {i}" for i in ids]}), file)
    arguments = ["feed", "items", file, "--app", package, "-e", vespa.url]
    command = [sys.executable, "-m", "mrse_cli.main", *map(str, arguments)]

    def slow(method: str, path: str, tries: int) -> int:
        time.sleep(0.01)  # so that the journal is written while the feed is under way
        return 200

    vespa.status = slow
    feed = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(vespa.documents) < ITEMS * 3 // 4 and feed.poll() is None:
        time.sleep(0.01)
    feed.send_signal(signal.SIGKILL)
    assert feed.wait() == -signal.SIGKILL
    vespa.status = lambda method, path, tries: 200
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert set(vespa.documents) == {f"id:item:item::{i}" for i in ids}
    fed, unchanged = re.search(r"(\d+) fed .*; (\d+) unchanged", again.stdout).groups()
    assert int(fed) + int(unchanged) == ITEMS and int(unchanged) > 0, "it resumes, and does not begin again"


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_feed_that_is_ended_says_what_it_did_and_how_to_go_on(vespa, package, tmp_path, sent, code) -> None:
    file = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": [f"i{n}" for n in range(2000)], "title": ["red dress"] * 2000}), file)
    arguments = ["feed", "items", file, "--app", package, "-e", vespa.url]
    command = [sys.executable, "-m", "mrse_cli.main", *map(str, arguments)]
    vespa.status = lambda method, path, tries: time.sleep(0.01) or 200
    feed = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while len(vespa.documents) < 20 and feed.poll() is None:
        time.sleep(0.01)
    feed.send_signal(sent)
    out, err = feed.communicate(timeout=60)
    assert feed.returncode == code and "run the same command again to resume" in out and err == ""
    fed, missed = re.search(r"(\d+) fed in .*; (\d+) not reached", out).groups()
    assert 20 <= int(fed) == len(vespa.documents) < 2000 and int(fed) + int(missed) == 2000
