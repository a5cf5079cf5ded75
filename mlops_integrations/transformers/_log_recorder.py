"""Records the logs of a Trainer, and the parameters of its trainings. Imports no framework."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from mlops_integrations.recording.run import Run
from mlops_integrations.transformers import _translation

logger: Final = logging.getLogger("mlops_integrations")


class LogRecorder:
    """Records the logs and parameters of one callback, into the run that each call names.

    Args:
        raw_names: record metrics by the Trainer's own names.
        given: names of parameters that the user gives: they win over the Trainer's own.
    """

    def __init__(self, *, raw_names: bool, given: frozenset[str]) -> None:
        self._raw_names = raw_names
        self._given = given
        self._prefixes = ["eval", "test"]
        self._epoch: tuple[int, object] | None = None
        self._nan_said = False
        self._params: dict[str, dict[str, str]] = {}
        """The recorded parameters, by the uid of the run."""

    def training_begins(self) -> None:
        """Reset for a new training: epochs count anew, and a NaN is reported again."""
        self._epoch, self._nan_said = None, False

    def evaluation_begins(self, prefix: str) -> None:
        """From now on, treat names with this prefix as an evaluation's."""
        if not f"{prefix}_".startswith(tuple(f"{known}_" for known in self._prefixes)):
            self._prefixes.append(prefix)

    def params_of(self, uid: str) -> dict[str, str]:
        """Return the recorded parameters of this run."""
        return self._params.get(uid, {})

    def resume(self, uid: str, params: Mapping[str, str]) -> None:
        """Set the parameters that this run has already, as a checkpoint says."""
        self._params[uid] = dict(params)

    def record_params(self, run: Run, params: Mapping[str, str]) -> None:
        """Record parameters once; of later trainings and evaluations only new ones. Reports those that differ."""
        known = self._params.setdefault(run.uid, {})
        fresh, changed = _translation.news(known, {key: params[key] for key in params if key not in self._given})
        known.update(fresh)
        if fresh:
            run.log_params(fresh)
        if changed:
            run.set_tag("mlops.params_changed", changed)
            logger.warning("mlops: parameters of run %s keep their first values, though now: %s", run.name, changed)

    def record(self, run: Run, logs: Mapping[str, Any], step: int, rank: int = 0) -> None:
        """Record values of the Trainer's log at its global step."""
        names = logs if self._raw_names else dict(_translation.named(logs, self._prefixes))
        epoch = (step, logs.get("epoch"))
        if epoch == self._epoch:  # an evaluation's log, at the step of a training's log
            names = {name: value for name, value in names.items() if name not in {"epoch", "train/epoch"}}
        self._epoch = epoch
        if rank:
            names = {f"rank{rank}/{name}": value for name, value in names.items()}
        run.log_metrics(names, step)
        self._look_for_nan(run, logs, step)

    def _look_for_nan(self, run: Run, logs: Mapping[str, Any], step: int) -> None:
        found = None if self._nan_said else _translation.nan_in(logs)
        if found is not None:
            self._nan_said = True
            run.set_tag("mlops.nan_at_step", step)
            hidden = logs.get("loss") == logs.get("loss")
            why = f" (the loss is logged as {logs.get('loss')}: logging_nan_inf_filter hides it)" if hidden else ""
            advice = "Look at the data and the learning rate, or go back to a checkpoint"
            logger.warning("mlops: %s is NaN at step %d%s. %s", found, step, why, advice)


def with_recorder(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a callback; an earlier version kept the recorder's own ones among them."""
    kept = dict(state)
    if "_logs" not in kept:
        recorder = LogRecorder(raw_names=False, given=frozenset(kept["_options"].get("params") or ()))
        for name in ("_raw_names", "_prefixes", "_epoch", "_nan_said", "_params"):
            setattr(recorder, name, kept.pop(name))
        kept["_logs"] = recorder
    return kept
