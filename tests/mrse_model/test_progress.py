import io

import pytest
from rich.console import Console

from mrse_model.progress import progress_bar, steps_shown


def test_each_step_has_a_bar_in_a_terminal_alone() -> None:
    shown, piped = io.StringIO(), io.StringIO()
    for file, terminal in ((shown, True), (piped, False)):
        with steps_shown(Console(file=file, force_terminal=terminal, width=100)) as show:
            for done in range(3):
                show("reading", done, 2)
            show("writing", 1, 2)
    assert "reading" in shown.getvalue() and "writing" in shown.getvalue() and "2/2" in shown.getvalue()
    assert not piped.getvalue(), "less than a minute"


def test_where_there_is_no_terminal_a_long_job_writes_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrse_model.progress.LINE_EVERY", 0.0)
    file = io.StringIO()
    with steps_shown(Console(file=file, width=100)) as show:
        show("reading", 1000, 2000)
        show("writing", 1, 2)
    assert [line.strip() for line in file.getvalue().splitlines()] == ["reading: 1,000 of 2,000", "writing: 1 of 2"]


def test_a_bar_can_be_left_out() -> None:
    file = io.StringIO()
    with progress_bar(Console(file=file, force_terminal=True), shown=False) as bar:
        bar.add_task("reading", total=2)
    assert not file.getvalue()
