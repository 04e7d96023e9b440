"""ArcFace and the cosine softmax."""

import math

import numpy as np
import pytest
import torch

from phonefit.models.tasks import task
from phonefit.models.tasks.identity_loss import IdentityLoss, centres, identity_loss
from phonefit.models.tasks.options import EmbeddingOptions

VECTORS = torch.eye(3)


def at_angle(degrees):
    """A vector at this angle from the first of VECTORS, towards the second."""
    angle = math.radians(degrees)
    return 3.0 * torch.tensor([[math.cos(angle), math.sin(angle), 0.0]])


@pytest.mark.parametrize("degrees", [10, 45, 90, 120, 149])
def test_the_margin_is_added_to_the_angle_of_the_right_identity(degrees):
    right = torch.tensor([0])
    with_margin = identity_loss(at_angle(degrees), right, VECTORS, scale=4.0, margin=0.5)
    angle = math.radians(degrees)
    logits = 4 * torch.tensor([[math.cos(angle + 0.5), math.sin(angle), 0.0]])
    torch.testing.assert_close(with_margin, torch.nn.functional.cross_entropy(logits, right))


def test_the_loss_goes_on_rising_beyond_where_the_cosine_would_turn():
    others = VECTORS[[0, 2]]  # as far from the other one at every angle
    degrees = range(120, 181, 4)
    losses = [float(identity_loss(at_angle(each), torch.tensor([0]), others, 8.0, 0.5)) for each in degrees]
    assert (np.diff(losses) > 0).all()


def test_without_a_margin_it_is_the_softmax_of_scaled_cosines():
    outputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([0, 1, 2, 0, 1])
    units = outputs / outputs.norm(dim=1, keepdim=True)
    expected = torch.nn.functional.cross_entropy(7 * units, rows)
    torch.testing.assert_close(identity_loss(outputs, rows, 5 * VECTORS, 7.0, 0.0), expected)


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_gradients_are_finite_where_outputs_meet_their_identity(margin):
    outputs = VECTORS.clone().requires_grad_(True)
    identity_loss(outputs, torch.arange(3), VECTORS, 30.0, margin).backward()
    assert torch.isfinite(outputs.grad).all()


def test_centres_are_sums_of_directions():
    outputs = torch.tensor([[2.0, 0.0], [0.0, 3.0], [4.0, 0.0]])
    torch.testing.assert_close(centres(outputs, torch.tensor([0, 1, 0]), 2), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))


def test_only_identities_of_the_training_side_have_a_vector_and_they_start_at_their_embeddings():
    targets = torch.tensor([7, 2, 7, 9])
    outputs = torch.tensor([[1.0, 0.1], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
    loss = task(EmbeddingOptions(size=2)).learned_loss(lambda: outputs, targets)
    assert isinstance(loss, IdentityLoss)
    assert loss.vectors.shape == (3, 2)
    assert loss.known.tolist() == [2, 7, 9]
    cosine = torch.nn.functional.cosine_similarity(loss.vectors[:, None], outputs[None], dim=2)
    assert cosine.argmax(dim=0).tolist() == [1, 0, 1, 2]
    near, far = (float(loss(outputs[rows], targets[[0, 1, 3]], None)) for rows in ([0, 1, 3], [1, 3, 0]))
    assert near < far
    assert [name for name, _ in loss.named_parameters()] == ["vectors"]


def test_the_margin_is_of_arcface_only():
    losses = []
    for kind in ("arcface", "cosine"):
        made = task(EmbeddingOptions(size=2, loss=kind, scale=2))
        outputs, targets = torch.tensor([[1.0, 0.2], [0.1, 1.0]]), torch.tensor([0, 1])
        losses.append(float(made.learned_loss(lambda outputs=outputs: outputs, targets)(outputs, targets, None)))
    assert losses[0] > losses[1]
