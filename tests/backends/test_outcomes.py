"""A failure keeps all that the server said of it, whatever larger call it was a part of."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from mlops_integrations.backends.mlflow_preview.backend import PreviewBackend
from mlops_integrations.backends.protocol import Kind, Outcome

FAILURE: Outcome[Any] = Outcome(
    Kind.RETRY,
    "half",
    "later",
    "CODE",
    7.0,
    ambiguous=True,
    suspect=True,
    forgotten=True,
    request_id="abc",
    unacknowledged=True,
)


def test_a_failure_loses_nothing_but_its_value() -> None:
    """Fields that are added later included: each has a value here that is not its default."""
    assert [field.name for field in fields(Outcome) if getattr(FAILURE, field.name) == field.default] == []

    assert FAILURE.failed() == FAILURE.bare() == replace(FAILURE, value=None)


@pytest.mark.parametrize("message", ["the list: later", ""])
def test_a_failure_may_be_told_in_other_words(message: str) -> None:
    """Nothing else changes, and no words are words, too."""
    assert FAILURE.failed(message) == replace(FAILURE, value=None, message=message)


@pytest.mark.parametrize(
    ("call", "given", "failing"),
    [
        ("open_experiment", ("name", None), "experiments/list"),
        ("find_runs", ("1", "uid"), "experiments/get"),
        ("find_runs", ("1", "uid"), "runs/get"),
    ],
)
def test_a_call_of_several_requests(
    monkeypatch: pytest.MonkeyPatch, call: str, given: tuple[Any, ...], failing: str
) -> None:
    """It fails as the one of them did, the server's own name for the request included."""
    backend = PreviewBackend("http://server", None)  # type: ignore[arg-type]
    experiment = {"runs": [{"entry_point_name": "uid", "run_uuid": "1", "status": "RUNNING"}]}

    def get(path: str, _query: object) -> Outcome[Any]:
        return FAILURE if path == failing else Outcome(Kind.OK, experiment)

    monkeypatch.setattr(backend, "_get", get)
    found = getattr(backend, call)(*given)

    assert found == replace(FAILURE, value=None, message=found.message)
    assert found.message.endswith(": later")
