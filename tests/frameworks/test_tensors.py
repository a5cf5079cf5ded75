"""Tensors of the real frameworks as metric values: the value itself is asked, no library is imported for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mlops_integrations as mlops
from mlops_integrations.recording.device_values import arriving
from mlops_integrations.recording.values import NotANumberError, number, step_number

Read = Callable[[Path], Any]


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


def test_jax_computes_on_while_a_value_is_under_way(monkeypatch: pytest.MonkeyPatch, recorded: Read) -> None:
    """A result that is still being computed is left for later, and recorded when it is there."""
    jax = pytest.importorskip("jax")
    monkeypatch.setenv("MLOPS_DEVICE_VALUES", "lazy")
    compute = jax.jit(lambda x: jax.lax.fori_loop(0, 300, lambda _, y: y @ y / 500.0, x).sum())
    given = jax.numpy.ones((500, 500))
    expected = float(compute(given))
    run = mlops.start_run()
    loss = compute(given + 0.0)
    if loss.is_ready():
        pytest.skip("this JAX computes before it returns")
    assert arriving(loss) is not None
    run.log_metrics({"loss": loss}, step=3)
    run.finish()
    assert [(3, expected)] == recorded(run.directory).curve("loss")


def test_a_gpu_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, recorded: Read) -> None:
    """The value at the log call arrives, whatever becomes of the tensor."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    monkeypatch.setenv("MLOPS_DEVICE_VALUES", "lazy")
    run = mlops.start_run()
    loss = torch.zeros((), device="cuda")
    for step in range(10):
        loss += 1.0
        run.log_metrics({"loss": loss}, step=step)
    loss.fill_(-1.0)
    run.finish()
    assert [(step, step + 1.0) for step in range(10)] == recorded(run.directory).curve("loss")
