"""``doctor``: asks a tracking server for its dialect, limits and abilities. Writes there only with ``--write``."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Final

from mlops_integrations.cli import formatting
from mlops_integrations.cli.exit_codes import ALL_DELIVERED, NO_SERVER, SOME_LEFT, UsageError
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.client import TrackingClient
from mlops_integrations.clock import now_ms
from mlops_integrations.config import oracle_uri, settings
from mlops_integrations.entities import Metric, Param, RunTag
from mlops_integrations.errors import AccessDeniedError, MLOpsError, NotSupportedByServer, ServerError, UnreachableError

_SKEW_SECONDS: Final = 5.0
_BATCH: Final = 1_000
_EXPERIMENT: Final = "mlops-doctor"
_NAME_COLUMNS: Final = 14


class Doctor:
    """One check of one server."""

    def __init__(self, terminal: Terminal, uri: str | None) -> None:
        self._terminal = terminal
        try:
            self._client = TrackingClient(uri)
            self._access = settings.access(settings.from_arguments(tracking_uri=uri))
        except ValueError as error:
            raise UsageError(str(error)) from None
        self._trouble = False

    def run(self, *, write: bool) -> int:
        """Print the findings; the exit code says whether a training could be recorded there."""
        self._say("server", self._client.tracking_uri)
        self._say("credentials", _credentials(self._access, self._client.tracking_uri))
        began = time.perf_counter()
        try:
            self._say("dialect", self._client.dialect)
        except (UnreachableError, AccessDeniedError, ImportError) as error:
            self._say("trouble", str(error))
            return NO_SERVER
        self._say("answers after", f"{(time.perf_counter() - began) * 1000:,.0f} ms")
        about = self._client.about()
        self._say("version", about.version or "not told")
        self._clock(about.clock)
        for note in about.notes:
            self._say("note", note)
        limits = about.limits
        texts_of_limits = (
            f"{formatting.counted(limits.metrics, 'metric')}, {formatting.counted(limits.params, 'parameter')} or "
            f"{formatting.counted(limits.tags, 'tag')} a request; parameters of {limits.param_length:,} characters"
        )
        self._say("limits", texts_of_limits)
        self._try("experiments", self._experiments)
        self._try("artifacts", self._artifacts)
        if write:
            self._try("writing", self._write)
        else:
            self._say("writing", "not tried: --write makes an experiment, a run and a batch of metrics")
        return SOME_LEFT if self._trouble else ALL_DELIVERED

    def _clock(self, theirs: float | None) -> None:
        if theirs is None:
            self._say("clock", "not told")
            return
        ahead = theirs - time.time()
        text = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
        self._say("clock", text if abs(ahead) > _SKEW_SECONDS else "as this machine's")

    def _experiments(self) -> str:
        names = [experiment.name for experiment in self._client.list_experiments()]
        return f"{formatting.counted(len(names), 'experiment')} can be read"

    def _artifacts(self) -> str:
        first = next(self._client.list_experiments(), None)
        location = None if first is None else first.artifact_location
        if location is None:
            return "the server does not tell where they belong"
        if location.startswith("mlflow-artifacts:"):
            return "the server takes files itself"
        if "://" in location and not location.startswith("file:"):
            return f"belong to {location}: this version can't write there, files stay in the run directories"
        return f"belong into the directory {location}, if it is on this machine"

    def _write(self) -> str:
        client = self._client
        try:
            experiment = client.get_experiment_by_name(_EXPERIMENT).experiment_id
        except ServerError:
            experiment = client.create_experiment(_EXPERIMENT)
        run_id = client.create_run(experiment, f"doctor-{uuid.uuid4().hex[:8]}").info.run_id
        limits = client.about().limits
        count = min(_BATCH, limits.metrics)
        now = now_ms()
        began = time.perf_counter()
        client.log_batch(run_id, [Metric("doctor", float(step), now + step, step) for step in range(count)])
        seconds = time.perf_counter() - began
        client.log_batch(run_id, (), [Param("doctor", "1")])
        kept = [self._tries("tags", lambda: client.log_batch(run_id, (), (), [RunTag("doctor", "1")]))]
        there = list(client.get_metric_history(run_id, "doctor"))
        client.update_run(run_id, "FINISHED", now)
        if len(there) != count:
            self._trouble = True
            return f"{len(there):,} of {count:,} metrics are there, in run {run_id}"
        steps = "with their steps" if there[-1].step is not None else "without their steps"
        batch = f"{formatting.counted(count, 'metric')} in {seconds * 1000:,.0f} ms, {steps}"
        return (
            f"{batch}; {', '.join(kept)}; run {run_id} in experiment {_EXPERIMENT!r} stays there: delete it as you like"
        )

    def _tries(self, what: str, call: Callable[[], None]) -> str:
        try:
            call()
        except NotSupportedByServer:
            return f"no {what}"
        return what

    def _try(self, what: str, call: Callable[[], str]) -> None:
        try:
            self._say(what, call())
        except NotSupportedByServer as error:
            self._say(what, str(error))
        except MLOpsError as error:
            self._trouble = True
            self._say(what, f"TROUBLE: {error}")

    def _say(self, what: str, text: str) -> None:
        self._terminal.line(f"{what:<{_NAME_COLUMNS}} {text}")


def _credentials(access: settings.Access, uri: str) -> str:
    if access.request_auth is not None:
        return f"by MLflow's plugin {access.request_auth}"
    if oracle_uri.parse(uri) is not None:
        return "by Oracle's configuration"
    if access.username is not None:
        return f"user {access.username}"
    if access.token_file or access.token_command or access.token:
        return "a token"
    return "none"
