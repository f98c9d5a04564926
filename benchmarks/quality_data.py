"""The folders of Parquet files that quality.py and training_speed.py run on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mrse_model.errors import InputError
from mrse_model.sample.catalogue import write_sample


@dataclass(frozen=True)
class Data:
    """The files of a folder: what is learnt from, and what is measured on."""

    items: Path
    searches: Path | None
    learn: Path | None
    judged: Path
    wording: Path | None

    @classmethod
    def find(cls, folder: Path) -> Data:
        """Raises InputError for a folder without items or judgments."""

        def there(name: str) -> Path | None:
            return folder / name if (folder / name).is_file() else None

        plain, judged = there("judgments.parquet"), there("judgments_val.parquet")
        learn = (there("judgments_train.parquet") or plain) if judged else None
        judged = judged or plain
        if judged is None or there("items.parquet") is None:
            fix = "It needs items.parquet and judgments.parquet or judgments_val.parquet"
            raise InputError("this is no data to measure on", file=folder, fix=fix)
        return cls(folder / "items.parquet", there("searches.parquet"), learn, judged, there("queries_val.parquet"))


def sample_data(folder: Path) -> Path:
    """The generated sample catalogue in `folder`, written if it is not there."""
    if not (folder / "items.parquet").exists():
        write_sample(folder)
    return folder
