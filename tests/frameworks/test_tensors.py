"""Tensors of the real frameworks as metric values: the value itself is asked, no library is imported for it."""

from __future__ import annotations

import pytest

from mlops_integrations.values import NotANumberError, number, step_number


def test_torch() -> None:
    """Tensors of one element on the CPU, of any type, with or without gradient."""
    torch = pytest.importorskip("torch")
    given = [3.0, [2.5], True, float("nan")]
    assert [number(torch.tensor(value)) for value in given] == [3.0, 2.5, 1.0, "NaN"]
    assert number(torch.tensor(1.5, requires_grad=True)) == 1.5
    assert number(torch.tensor(1.5, dtype=torch.bfloat16)) == 1.5
    assert step_number(torch.tensor(4)) == (4, True)
    with pytest.raises(NotANumberError):
        number(torch.tensor([1.0, 2.0]))


def test_jax() -> None:
    """Arrays of one element."""
    jax = pytest.importorskip("jax")
    assert number(jax.numpy.array(2.0)) == 2.0
    with pytest.raises(NotANumberError):
        number(jax.numpy.array([1.0, 2.0]))
