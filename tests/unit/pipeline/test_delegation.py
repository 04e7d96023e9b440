"""Counting delegated operators, and the limit on their share."""

import pytest

from phonefit.models.artifact import Delegation
from phonefit.pipeline.convert.delegation import _between, check_delegation
from phonefit.pipeline.errors import ConversionError, DelegationError


def test_share_below_the_limit_names_what_was_left_out():
    delegation = Delegation(
        backend="XNNPACK", operators=10, delegated=7, partitions=2, rest={"aten::erf": 2, "GATHER": 1}
    )
    with pytest.raises(DelegationError) as caught:
        check_delegation(delegation, 0.9, ".pte fp32")
    message = str(caught.value)
    assert "XNNPACK takes 70% of the operators" in message
    assert "90%" in message
    assert "1 x GATHER, 2 x aten::erf" in message
    assert isinstance(caught.value, ConversionError) and caught.value.exit_code == 1  # a failed gate


def test_share_at_the_limit_passes():
    check_delegation(
        Delegation(backend="XNNPACK", operators=10, delegated=9, partitions=1, rest={"A": 1}), 0.9, "model"
    )


def test_a_runtime_without_a_delegate_has_no_share_to_hold_against_the_limit():
    delegation = Delegation(backend="CPUExecutionProvider", operators=10, delegated=None, partitions=1)
    assert delegation.share is None
    check_delegation(delegation, 1.0, ".onnx fp32")


def test_operators_between_the_edges_of_a_partition():
    """a -> B -> c -> D -> e, with F beside: a partition from c to e replaces D only, one from a to e both."""
    own = [
        {"op_name": "B", "inputs": [0], "outputs": [2]},
        {"op_name": "D", "inputs": [2, 7], "outputs": [4]},
        {"op_name": "F", "inputs": [2], "outputs": [6]},
    ]
    maker = {2: 0, 4: 1, 6: 2}
    assert _between(own, maker, [2, 7], [4]) == {1}
    assert _between(own, maker, [0, 7], [4]) == {0, 1}
    assert _between(own, maker, [0, 7], [4, 6]) == {0, 1, 2}
