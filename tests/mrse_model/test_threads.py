"""Jobs in threads: the values and gradients of one thread, and the same ones at every run."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from mrse_model.cpu_threads import generator, run_parallel, uniform
from mrse_model.layers import Dropout


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def parts(layers: nn.Module) -> list[partial[Tensor]]:
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    return [partial(layers, rows[start : start + 10]) for start in range(0, 50, 10)]


def test_values_and_gradients_are_those_of_one_thread() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    unused, frozen = nn.Parameter(torch.ones(3)), layers[2].bias.requires_grad_(False)
    direction = torch.randn(50, 4)

    def gradients(found: list[Tensor]) -> list[Tensor | None]:
        for p in (*layers.parameters(), unused):
            p.grad = None
        (torch.cat(found) * direction).sum().backward()
        return [p.grad for p in (*layers.parameters(), unused)]

    ours = run_parallel(parts(layers), [*layers.parameters(), unused])
    theirs = [job() for job in parts(layers)]
    assert torch.equal(torch.cat(ours), torch.cat(theirs))
    found, expected = gradients(ours), gradients(theirs)
    assert [g is None for g in found] == [g is None for g in expected] == [False, False, False, True, True]
    assert all(a is None or torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    assert frozen.grad is None
    with torch.no_grad():
        assert not any(some.requires_grad for some in run_parallel(parts(layers), layers.parameters()))


def test_a_run_can_be_repeated_whoever_comes_first() -> None:
    layers = nn.Sequential(nn.Linear(8, 512), Dropout(0.5), nn.Linear(512, 4))

    def run() -> tuple[Tensor, Tensor]:
        torch.manual_seed(3)
        layers.zero_grad()
        found = torch.cat(run_parallel(parts(layers), layers.parameters()))
        found.sum().backward()
        return found.detach(), layers[0].weight.grad.clone()

    first, gradient = run()
    for found, again in (run() for _ in range(20)):
        assert torch.equal(found, first) and torch.equal(again, gradient)
    rows = torch.ones(10, 8)
    torch.manual_seed(3)
    one, other = run_parallel([partial(layers, rows), partial(layers, rows)], layers.parameters())
    assert not torch.equal(one, other), "each job draws its own numbers"
    assert generator() is None and uniform(rows).shape == rows.shape


def test_each_thread_works_alone_and_the_caller_keeps_its_threads() -> None:
    def job() -> Tensor:
        return torch.tensor(torch.get_num_threads())

    assert [int(n) for n in run_parallel([job] * 4, [])] == [1] * 4
    assert torch.get_num_threads() == 2


def test_an_error_in_a_job_is_the_caller_s() -> None:
    def fails() -> Tensor:
        raise ValueError("no such row")

    with pytest.raises(ValueError, match="no such row"):
        run_parallel([fails], [])
