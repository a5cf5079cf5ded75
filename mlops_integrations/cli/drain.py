"""Delivery of one run by ``sync``: takes the lease, for which it asks a live uploader, and runs an uploader."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mlops_integrations.cli.progress import Progress
from mlops_integrations.config.credential_owner import Withheld
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.lease import Holder, Lease, live_holder
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.upload.server_calls import (
    GaveUpError,
    InterruptedUploadError,
    RunGoneError,
    StoppedByServerError,
    UploadContext,
)
from mlops_integrations.upload.writer_processes import WriterProcesses

if TYPE_CHECKING:
    from mlops_integrations.backends.protocol import Backend

_ASK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds without an answer before a server is given up."""

    first: float = 5.0
    """For a server that has never answered."""
    later: float = 60.0


class LeftError(Exception):
    """Something of a run stays undelivered; the text says why."""


class GoneError(LeftError):
    """The run stays undelivered since its server has deleted it, or never had it."""


@dataclass(slots=True)
class Server:
    """One destination, and the findings about it."""

    uri: str
    backend: Backend
    patiences: Patience
    withheld: Withheld | None = None
    """The user's credentials that the server does not get."""
    reached: bool = False
    """True once the server has answered."""
    lost: str | None = None
    """The reason why the server is not asked any more, or None."""

    @property
    def patience(self) -> float:
        """The patience that applies now, in seconds."""
        return self.patiences.later if self.reached else self.patiences.first


@contextmanager
def lease_of(directory: RunDirectory, seconds: float, tell: Callable[[Holder], None]) -> Iterator[Lease]:
    """Hold a run's lease during a ``with`` block.

    Args:
        directory: the run directory.
        seconds: how long to wait for a live uploader to hand it over: it does so after its current request.
        tell: called once with the holder, if it has to be waited for.

    Raises:
        LeftError: another process keeps it.
        OSError: the directory can't be written.
    """
    lease = Lease(directory.path, "sync", yields=False)
    try:
        _take(lease, directory, time.monotonic() + seconds, tell)
    finally:
        lease.wish_fulfilled()
    try:
        yield lease
    finally:
        lease.release()


def _take(lease: Lease, directory: RunDirectory, deadline: float, tell: Callable[[Holder], None]) -> None:
    told = False
    while not lease.acquire():
        holder = live_holder(directory.path)
        if holder is not None and not holder.yields:
            raise LeftError(f"{holder} is delivering it")
        if time.monotonic() >= deadline:
            raise LeftError(f"{holder or 'somebody'} does not hand the delivery over")
        if holder is not None and not told:
            tell(holder)
            told = True
        lease.ask()
        time.sleep(_ASK_SECONDS)


class Drain:
    """Delivers all of one run. The caller holds the lease."""

    def __init__(
        self, directory: RunDirectory, server: Server, writers: WriterProcesses, lease: Lease, progress: Progress
    ) -> None:
        from mlops_integrations.upload.uploader import Uploader

        self._directory = directory
        self._server = server
        self._lease = lease
        self._progress = progress
        self._context = UploadContext(stop=self._stop, patience=server.patience, on_answer=self._answered)
        self._uploader = Uploader(directory, server.backend, server.uri, writers, self._context, self._advanced)
        self._points_before = self.state.points
        self._refused_before = dict(self.state.refused)

    @property
    def state(self) -> Cursor:
        """The cursor: how far the delivery has got."""
        return self._uploader.state

    @property
    def refused(self) -> dict[str, int]:
        """Number of records that the server has refused this time, by reason."""
        counts = self.state.refused.items()
        fresh = {reason: count - self._refused_before.get(reason, 0) for reason, count in counts}
        return {reason: count for reason, count in fresh.items() if count}

    def drain(self) -> None:
        """Deliver everything in the run directory.

        Raises:
            LeftError: not all could be delivered.
            GoneError: the server has deleted the run, or does not know it.
            OSError: the run directory can't be read or written.
        """
        try:
            self._uploader.drain()
        except GaveUpError as error:
            self._server.lost = f"{self._server.uri}: {error}"
            raise LeftError(self._server.lost) from None
        except RunGoneError as error:
            raise GoneError(f"{self._server.uri}: {error}") from None
        except StoppedByServerError as error:
            raise LeftError(f"{self._server.uri}: {error}") from None
        except InterruptedUploadError:
            raise LeftError(f"{live_holder(self._directory.path) or 'somebody'} has taken the delivery over") from None

    def _advanced(self, state: Cursor) -> None:
        self._progress.at(state.points - self._points_before)

    def _answered(self) -> None:
        self._server.reached = True
        self._context.patience = self._server.patience

    def _stop(self) -> bool:
        """True if the lease is lost. Also renews it and shows the progress, since this is called all the time."""
        trouble = self.state.trouble
        self._progress.tick(None if trouble is None else trouble.message)
        return not self._lease.keep()
