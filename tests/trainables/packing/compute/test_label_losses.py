"""Cross-entropy in chunks, against torch's over all logits."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from trainables.data.tokens import IGNORED
from trainables.packing.compute import model
from trainables.packing.compute.model import label_losses


@pytest.mark.parametrize("chunk_labels", [3, 100])
def test_losses_and_gradients_are_those_of_whole_logits(
    monkeypatch: pytest.MonkeyPatch, chunk_labels: int
) -> None:
    monkeypatch.setattr(model, "CHUNK_LABELS", chunk_labels)
    torch.manual_seed(0)
    hidden = torch.randn(11, 8, requires_grad=True)
    head = torch.randn(20, 8)
    targets = torch.randint(0, 20, (11,))
    targets[[2, 10]] = IGNORED
    weights = torch.rand(11)
    found = label_losses(hidden, head, targets)
    (grad,) = torch.autograd.grad((found * weights).sum(), hidden)
    expected = cross_entropy(hidden @ head.T, targets, reduction="none")
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), hidden)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(grad, expected_grad)
    assert (found[[2, 10]] == 0).all() and (grad[[2, 10]] == 0).all()


def test_nan_in_padding_reaches_no_gradient() -> None:
    hidden = torch.zeros(2, 4)
    hidden[1] = torch.nan
    hidden.requires_grad_()
    found = label_losses(hidden, torch.ones(5, 4), torch.tensor([1, IGNORED]))
    found.sum().backward()
    assert found.isfinite().all()
    assert hidden.grad is not None and hidden.grad.isfinite().all()


def test_gradient_agrees_with_finite_differences() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    head = torch.randn(9, 6, dtype=torch.float64)
    targets = torch.tensor([1, 8, IGNORED, 0, 3])
    assert torch.autograd.gradcheck(lambda h: label_losses(h, head, targets), hidden)
