"""The losses against independent computations, and the signs and masks that are easy to get wrong."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from mrse_model.losses import distillation, hnst, log_q, mnsce  # noqa: E402
from mrse_model.training.ragged import Ragged  # noqa: E402
from mrse_model.training.stages.contrastive import false_negative_mask  # noqa: E402


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1)


def test_mnsce_is_the_softmax_written_out() -> None:
    query, item, extra = unit(4, 8), unit(4, 8, seed=1), unit(3, 8, seed=2)
    found = mnsce(query, item, extra, temperature=0.1).numpy()
    scores = query.numpy() @ np.concatenate([item.numpy(), extra.numpy()]).T / 0.1
    for row in range(4):
        terms = np.exp(scores[row] - scores[row].max())
        assert found[row] == pytest.approx(-np.log(terms[row] / terms.sum()), rel=1e-9)


def test_a_masked_column_does_not_count() -> None:
    query, item, extra = unit(3, 8), unit(3, 8, seed=1), unit(2, 8, seed=2)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[0, 3] = True
    full, masked = mnsce(query, item, extra), mnsce(query, item, extra, mask)
    without = mnsce(query[:1], torch.cat([item[:1], item[1:], extra[1:]])[:1], torch.cat([item[1:], extra[1:]]))
    assert masked[0] < full[0]
    assert masked[0].item() == pytest.approx(without[0].item(), rel=1e-9)
    assert torch.equal(masked[1:], full[1:])


def test_the_diagonal_stays_the_positive_whatever_the_mask_says() -> None:
    query, item = unit(3, 8), unit(3, 8, seed=1)
    assert torch.equal(mnsce(query, item, None, torch.eye(3, dtype=torch.bool)), mnsce(query, item))


def test_log_q_pushes_a_popular_item_away_less() -> None:
    """The sign: with the correction, the gradient on a popular negative's score is smaller than without."""
    query = unit(2, 8)
    item = unit(2, 8, seed=1).requires_grad_()
    popular = torch.tensor([0.001, 0.9], dtype=torch.float64).log()  # item 1 is met nearly always

    def push(correction: torch.Tensor | None) -> float:
        loss = mnsce(query, item, log_q=correction)[0]  # query 0: item 1 is its negative
        (gradient,) = torch.autograd.grad(loss, item)
        return float(gradient[1] @ query[0])

    assert 0 < push(popular) < push(None)


def test_log_q_of_mixed_sampling() -> None:
    found = log_q(torch.tensor([50.0, 0.0]), total=100, catalogue=1000, batch=30, extra=10).exp()
    assert found.tolist() == pytest.approx([0.75 * 0.5 + 0.25 / 1000, 0.25 / 1000])


def test_hnst_is_zero_beyond_the_margin_and_counts_only_where_there_is_a_hard_negative() -> None:
    query = torch.tensor([[1.0, 0.0]] * 3)
    item = torch.tensor([[1.0, 0.0], [0.9, 0.0], [0.5, 0.0]])
    hard = torch.tensor([[0.8, 0.0], [0.9, 0.0], [0.9, 0.0]])
    found = hnst(query, item, hard, torch.tensor([1.0, 1.0, 0.0]), margin=0.15)
    assert found.tolist() == pytest.approx([0.0, 0.15, 0.0])


def test_known_positives_are_no_negatives_wherever_they_stand() -> None:
    known = Ragged.of([[1, 5], [], [7]])
    found = false_negative_mask(np.array([0, 1, 2, 0]), np.array([5, 3, 7, 1, 7, 5]), known, np.arange(8))
    assert found.tolist() == [
        [True, False, False, True, False, True],
        [False] * 6,
        [False, False, True, False, True, False],
        [True, False, False, True, False, True],
    ]
    duplicates = np.array([0, 1, 2, 1, 4, 5, 6, 4])  # 3 as 1, 7 as 4
    found = false_negative_mask(np.array([0, 2]), np.array([5, 3, 7, 1, 4]), known, duplicates)
    assert found.tolist() == [[True, True, False, True, False], [False, False, True, False, True]]


def test_distillation_is_none_where_the_student_says_what_the_teacher_does() -> None:
    torch.manual_seed(0)
    query, columns = (torch.nn.functional.normalize(torch.randn(n, 6), dim=1) for n in (3, 5))
    same = distillation(query, columns, query @ columns.T, temperature=0.1, teacher_temperature=0.1)
    assert torch.allclose(same, torch.zeros(3), atol=1e-5)
    other = query @ columns.roll(1, 0).T
    expected = torch.nn.functional.kl_div(
        (query @ columns.T / 0.06).log_softmax(1), (other / 0.05).softmax(1), reduction="none"
    ).sum(1)
    assert torch.allclose(distillation(query, columns, other, temperature=0.06), expected, atol=1e-5)
    left_out = torch.zeros(3, 5, dtype=torch.bool)
    left_out[:, 1:] = True
    left_out[0, 0] = True  # the diagonal stays
    alone = distillation(query, columns, other, left_out)
    assert alone[0] == pytest.approx(0, abs=1e-5) and (alone >= -1e-6).all()
    assert torch.allclose(alone[2], distillation(query[2:], columns[[2, 0]], other[2:, [2, 0]])[0], atol=1e-5)
