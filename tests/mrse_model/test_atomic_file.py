from pathlib import Path

import pytest

from mrse_model.atomic_file import atomic_file


def test_the_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_file(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as part:
        part.write_text("ha")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    (tmp_path / "a.txt.part").write_text("left by a kill, and longer")
    with atomic_file(path) as part, open(part, "wb") as file:
        file.write(b"new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]
