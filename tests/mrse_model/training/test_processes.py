"""Two processes under `accelerate launch` train what one trains: the same losses, the same weights, the same files.

Here on CPUs (gloo). Dropout is off: its masks are the one thing that a share of a batch draws otherwise.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from mrse_model.config import read_config, write_config
from mrse_model.sample.catalogue import write_sample
from mrse_model.training.claim import Inputs
from mrse_model.training.distributed import Processes
from mrse_model.training.pipeline import train
from tests.helpers.small_runs import curve, settings

ROOT = Path(__file__).resolve().parents[3]


def run(folder: Path, out: Path) -> dict[str, torch.Tensor]:
    sample = folder / "sample"
    inputs = Inputs(sample / "items.parquet", sample / "searches.parquet", sample / "judgments.parquet")
    return train(inputs, out, read_config(folder / "settings.toml"), Console(quiet=True)).state_dict()


def free_port() -> str:
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return str(some.getsockname()[1])


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    write_sample(tmp_path / "sample", items=240, users=30, searches=300)
    path = settings(tmp_path / "settings.toml", modality_dropout=0.0, bf16="off")
    config = read_config(path)
    odd = replace(config.train.ft_att, batch=63, extra_negatives=8)  # a batch that two cannot halve
    write_config(
        replace(config, model=replace(config.model, dropout=0.0), train=replace(config.train, ft_att=odd)), path
    )
    run(tmp_path, tmp_path / "one")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launched = subprocess.run(
        [*launch, "--main_process_port", free_port(), __file__, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, 
        env={**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    ranks = [load_file(tmp_path / f"rank-{rank}.safetensors") for rank in (0, 1)]
    assert one.keys() == two.keys() == ranks[0].keys() == ranks[1].keys()
    for name in one:
        assert torch.equal(ranks[0][name], ranks[1][name]) and torch.equal(ranks[0][name], two[name])
        assert torch.allclose(one[name], two[name], atol=2e-3), name  # Adam makes a rounding error as big as a step
    assert [row.keys() for row in curve(tmp_path / "one")] == [row.keys() for row in curve(tmp_path / "two")]
    for ours, theirs in zip(curve(tmp_path / "one"), curve(tmp_path / "two"), strict=True):
        assert ours == pytest.approx(theirs, abs=2e-3)
    files = [
        sorted(str(p.relative_to(tmp_path / name)) for p in (tmp_path / name).rglob("*")) for name in ("one", "two")
    ]
    assert files[0] == files[1]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    weights = run(folder, folder / "two")
    processes = Processes()
    assert processes.world == 2
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / f"rank-{processes.rank}.safetensors")
