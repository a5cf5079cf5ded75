"""What is kept of parameters and tags."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import mlops_integrations as mlops
from mlops_integrations.journal.records import Params, Record, Tags
from mlops_integrations.recording.run import Run
from records_read import losses, merged

pytestmark = pytest.mark.usefixtures("recording_alone")

Read = Callable[[Path], list[Record]]


def test_params(run: Run, read: Read) -> None:
    """Any value by ``str``, nested mappings flattened with a slash."""
    run.log_params({"optimizer": {"lr": 0.1, "betas": (0.9, 0.99)}, "seed": None, 3: True})
    run.log_param("имя", "значение")
    expected = {"optimizer/lr": "0.1", "optimizer/betas": "(0.9, 0.99)", "seed": "None", "3": "True", "имя": "значение"}
    assert expected == merged(read(run.directory), Params)


def test_param_given_again(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """The same value is silent; another one is kept out, counted, and said with its name."""
    run = mlops.start_run(params={"lr": 0.1})
    caplog.clear()
    run.log_params({"lr": "0.1"})
    run.log_param("lr", 0.1)
    assert caplog.messages == []
    run.log_params({"lr": 0.2, "depth": 3})
    run.log_param("lr", 0.3)
    run.finish()
    records = read(run.directory)
    assert [record.values for record in records if isinstance(record, Params)] == [{"lr": "0.1"}, {"depth": "3"}]
    assert losses(records) == {"parameter given again with another value": 2}
    assert sum("lr" in message for message in caplog.messages) == 1


def test_tags(run: Run, read: Read) -> None:
    """Each call is kept: the last value stands when they are delivered."""
    run.set_tags({"stage": "dev", "n": 1})
    run.set_tag("stage", "prod")
    assert merged(read(run.directory), Tags) == {"stage": "prod", "n": "1"}


def test_params_and_tags_of_the_start(read: Read) -> None:
    """They are recorded at once."""
    run = mlops.start_run(params={"a": {"b": 1}}, tags={"team": "vision"})
    assert (
        merged(read(run.directory), Params),
        merged(read(run.directory), Tags),
    ) == ({"a/b": "1"}, {"team": "vision"})
    run.finish()
