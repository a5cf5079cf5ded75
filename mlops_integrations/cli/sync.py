"""``sync``: delivers run directories, with the same uploader that delivers a live run.

Works beside live uploaders: it asks the holder of a run's lease to hand it over, and gives it back.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from mlops_integrations.cli import formatting, run_summary
from mlops_integrations.cli.drain import (
    Drain,
    GoneError,
    LeftError,
    Patience,
    Server,
    lease_of,
)
from mlops_integrations.cli.exit_codes import (
    ALL_DELIVERED,
    INTERRUPTED,
    NO_SERVER,
    SOME_LEFT,
    UsageError,
)
from mlops_integrations.cli.progress import Progress
from mlops_integrations.cli.terminal import Terminal
from mlops_integrations.config import settings
from mlops_integrations.config.settings import Settings
from mlops_integrations.journal import cursor, files
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.lease import Holder
from mlops_integrations.journal.records import RunSpec
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.upload.writer_processes import WriterProcesses

_INTERRUPTED: Final = """\
Interrupted. Nothing is lost: what is not delivered stays on disk, and the same command goes on from there."""
_NO_SERVER_KNOWN: Final = """\
No tracking server is known. Name one with --to http://host:5000, or in MLFLOW_TRACKING_URI."""
_SERVER_LOST: Final = """\
Nothing is lost: what is left stays on disk. When the server is there, the same command delivers it; \
to another server: --to URI."""
_CANT_TELL: Final = """\
what is there is delivered, but whether it still runs can't be told from here (process {0.pid} on {0.host}). \
If it does not: sync --close"""
_REQUESTS_TO_WAIT_FOR: Final = 2
_MOST_NAMED: Final = 50


@dataclass(frozen=True, slots=True)
class _Job:
    directory: RunDirectory
    spec: RunSpec
    destination: str
    waiting: int


@dataclass(slots=True)
class _Tally:
    """Counts of runs."""

    delivered: int = 0
    already: int = 0
    running: int = 0
    left: int = 0
    homeless: int = 0
    """Left because no server is known for them."""


@dataclass(slots=True)
class Sync:
    """One call of ``sync``.

    Args:
        terminal: where to print.
        to: the server to deliver to, instead of the one that the runs were recorded for. May hold credentials.
        close: close runs whose writer can't be judged from here.
        as_new: make another run on the server if it has deleted a run, or never had it.
        experiment: the experiment in which to make runs that the server does not have yet.
        patience: how long to wait for servers that do not answer.
    """

    terminal: Terminal
    to: str | None = None
    close: bool = False
    as_new: bool = False
    experiment: str | None = None
    patience: Patience = field(default_factory=Patience)
    _servers: dict[str, Server] = field(default_factory=dict)
    _jobs: list[_Job] = field(default_factory=list)
    _tally: _Tally = field(default_factory=_Tally)

    def run(self, runs: list[RunDirectory]) -> int:
        """Deliver these runs; return the exit code.

        Raises:
            UsageError: ``to`` is not an address that can be delivered to.
        """
        try:
            chosen = settings.from_arguments(tracking_uri=self.to)
        except ValueError as error:
            raise UsageError(f"--to: {error}") from None
        try:
            self._jobs = jobs = [job for each in runs if (job := self._plan(each, chosen.tracking_uri)) is not None]
            progress = Progress(self.terminal, sum(job.waiting for job in jobs), len(jobs))
            for job in jobs:
                self._deliver(job, chosen, progress)
        except KeyboardInterrupt:
            self.terminal.note(_INTERRUPTED)
            return INTERRUPTED
        self._sum_up(progress)
        return self._exit_code()

    def _plan(self, directory: RunDirectory, default: str | None) -> _Job | None:
        """Return the delivery job for a run; None if nothing has to be, or can be, delivered."""
        try:
            run_summary.check(directory)
            spec = directory.spec()
            known = cursor.load_all(directory.path)
            if not self.to and any(self._is_done(directory, spec, state) for state in reversed(known)):
                return None
            last = known[-1].destination if known else None
            destination = default if self.to else spec.tracking_uri or last or default
            if destination is None:
                self._tally.homeless += 1
                self._say_left(formatting.label(spec), "no tracking server is known for it")
                return None
            state = cursor.load(cursor.cursor_path(directory.path, destination))
            if self.to and state is not None and self._is_done(directory, spec, state):
                return None
            return _Job(directory, spec, destination, run_summary.points_waiting(directory, state))
        except OSError as error:
            self._say_left(directory.path.name, str(error))
        return None

    def _is_done(self, directory: RunDirectory, spec: RunSpec, state: Cursor) -> bool:
        """True if the server need not be contacted; counts such a run, and prints one that goes on."""
        writers = WriterProcesses(directory, presume_dead=self.close)
        try:
            writers.poll()
            ended = writers.ending()
            if not state.covers(directory.sizes(), ended):
                return False
            if ended is not None:
                self._tally.already += 1
            else:
                self._say_open(spec, writers)
        finally:
            writers.close()
        return True

    def _deliver(self, job: _Job, chosen: Settings, progress: Progress) -> None:
        label = formatting.label(job.spec)
        progress.begin(label)
        writers = WriterProcesses(job.directory, presume_dead=self.close)
        try:
            server = self._server(job.destination, chosen)
            seconds = _REQUESTS_TO_WAIT_FOR * settings.access().timeout
            with lease_of(job.directory, seconds, lambda holder: self._say_waiting(label, holder)) as lease:
                self._ask_for_experiment(job, label)
                try:
                    state = self._drain(Drain(job.directory, server, writers, lease, progress), job)
                except GoneError:
                    if not self.as_new:
                        raise
                    self._ask_for_another(job)
                    state = self._drain(Drain(job.directory, server, writers, lease, progress), job)
            ended = writers.ending()
            if state.artifacts_kept:
                kept = formatting.by_reason(state.artifacts_kept)
                self._say("not sent", label, f"artifacts: {kept}. They stay in {job.directory.artifacts}")
            if state.artifacts_waiting:
                why = "" if state.trouble is None else f": {state.trouble.message}"
                self._say_left(label, f"{formatting.counted(len(state.artifacts_waiting), 'file')}{why}")
            elif ended is not None and state.covers(job.directory.sizes(), ended):
                self._tally.delivered += 1
                where = state.url or f"run {state.run_id}"
                self._say("delivered", label, f"{formatting.counted(state.points, 'point')}, {state.status}, {where}")
            else:
                self._say_open(job.spec, writers)
        except (LeftError, OSError) as error:
            self._say_left(label, str(error))
        finally:
            writers.close()

    def _drain(self, delivery: Drain, job: _Job) -> Cursor:
        try:
            delivery.drain()
        finally:
            self._say_refused(job, delivery.refused)
        return delivery.state

    def _ask_for_experiment(self, job: _Job, label: str) -> None:
        """Store in the cursor the experiment in which to make the run, unless it may have been made already."""
        path = cursor.cursor_path(job.directory.path, job.destination)
        state = cursor.load(path)
        if self.experiment is None or (state is not None and state.run_id is not None):
            return
        if (state is None and path.exists()) or (state is not None and state.intent is not None):
            self.terminal.note(
                f"{label}: it may have been made already, where it was recorded for: --experiment is not used"
            )
            return
        state = state or Cursor(job.destination)
        state.elsewhere, state.experiment_id = self.experiment, None
        cursor.save(path, state, durable=True)

    def _ask_for_another(self, job: _Job) -> None:
        """Replace the cursor, to make a new run for one that the server does not have; the old one is kept beside."""
        path = cursor.cursor_path(job.directory.path, job.destination)
        state = cursor.load(path) or Cursor(job.destination)
        wish = secrets.token_hex(4)
        files.create(path.with_name(f"{path.name}.{wish}"), path.read_bytes())
        replaced = [*state.replaced, *([state.run_id] if state.run_id else [])]
        fresh = Cursor(job.destination, as_new=wish, replaced=replaced, elsewhere=self.experiment or state.elsewhere)
        cursor.save(path, fresh, durable=True)

    def _server(self, destination: str, chosen: Settings) -> Server:
        from mlops_integrations.backends.registry import open_backend

        server = self._servers.get(destination)
        if server is None:
            access = settings.access_to(destination, chosen)
            try:
                backend = open_backend(destination, access)
            except (ValueError, OSError) as error:
                raise LeftError(f"{destination}: {error}") from None
            server = self._servers[destination] = Server(destination, backend, self.patience, access.withheld)
            self._say_withheld(server)
        if server.withheld is not None and server.withheld.needed:
            raise LeftError(f"{destination} takes signed requests only, and nobody has named it: sync --to")
        if server.lost is not None:
            raise LeftError(f"{destination} was not reached")
        return server

    def _say_withheld(self, server: Server) -> None:
        """Print which credentials a server does not get, and the command that delivers its runs with them."""
        if server.withheld is None:
            return
        runs = [job.directory.path for job in self._jobs if job.destination == server.uri]
        words: list[str | Path] = ["sync", *runs[:_MOST_NAMED], "--to", server.withheld.address]
        words += ["--close"] * self.close + ["--as-new"] * self.as_new
        words += ["--experiment", self.experiment] if self.experiment is not None else []
        command = formatting.shell_command(*words)
        if len(runs) > _MOST_NAMED:
            command += f" and likewise for {formatting.counted(len(runs) - _MOST_NAMED, 'other run')}"
        self.terminal.note(formatting.withheld(server.withheld, server.uri, command))

    def _say_waiting(self, label: str, holder: Holder) -> None:
        self.terminal.note(f"{label}: asking {holder} to hand the delivery over")

    def _say_open(self, spec: RunSpec, writers: WriterProcesses) -> None:
        """Print that all is delivered but the last status, which is not known yet."""
        if writers.unknown:
            self._say_left(formatting.label(spec), _CANT_TELL.format(writers.unknown[0]))
        else:
            self._tally.running += 1
            self._say("running", formatting.label(spec), "delivered so far, it goes on")

    def _say_refused(self, job: _Job, refused: dict[str, int]) -> None:
        if refused:
            self._say(
                "refused",
                formatting.label(job.spec),
                f"{formatting.by_reason(refused)}. They stand in {job.directory.refused}",
            )

    def _say_left(self, label: str, why: str) -> None:
        self._tally.left += 1
        self._say("left", label, why)

    def _say(self, what: str, label: str, text: str) -> None:
        self.terminal.line(f"{what:<10} {label}: {text}")

    def _sum_up(self, progress: Progress) -> None:
        tally = self._tally
        counts = {
            "delivered": tally.delivered,
            "delivered before": tally.already,
            "still running": tally.running,
            "left": tally.left,
        }
        parts = [f"{count:,} {what}" for what, count in counts.items() if count]
        if parts:
            self.terminal.line(f"Runs: {', '.join(parts)}{progress.summary()}")
        if tally.homeless:
            self.terminal.note(_NO_SERVER_KNOWN)
        if any(server.lost for server in self._servers.values()):
            self.terminal.note(_SERVER_LOST)

    def _exit_code(self) -> int:
        if not self._tally.left:
            return ALL_DELIVERED
        servers = self._servers.values()
        missing = self._tally.homeless or any(server.lost for server in servers)
        return NO_SERVER if missing and not any(server.reached for server in servers) else SOME_LEFT
