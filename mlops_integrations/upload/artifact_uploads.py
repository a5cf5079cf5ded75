"""Sends the files of one run to its artifacts: after everything else, one at a time, again after a failure.

Waiting files are listed in the cursor, so a later uploader goes on. Trouble with the artifact store delays neither
metrics nor the run's status. Artifacts that can't be sent stay in the run directory; they are counted by reason.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Final

from mlops_integrations.backends.protocol import Backend, Kind
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.records import Artifact
from mlops_integrations.untrusted import stays_within
from mlops_integrations.upload.pacing import backoff
from mlops_integrations.upload.server_calls import ServerCalls

MISSING: Final = "file is missing"
LEADS_OUT: Final = "path that leads out of the run's artifacts"
_MOST_TRIES_OF_A_DRAIN: Final = 4
_LOOK_AGAIN_SECONDS: Final = 0.5
"""Pause for a file that is not there yet: looking costs nothing, and ``finish`` waits for it."""


class Artifacts:
    """The files of one run that are to be sent."""

    def __init__(
        self, directory: Path, backend: Backend, state: Cursor, calls: ServerCalls, rng: random.Random
    ) -> None:
        self._directory = directory
        self._backend = backend
        self._state = state
        self._calls = calls
        self._rng = rng
        self._tries = 0
        self._try_at = 0.0

    def note(self, records: list[Artifact]) -> None:
        """Add files to be sent; saved with the cursor's move."""
        self._state.artifacts_waiting.update({record.path: record.file for record in records})

    @property
    def are_left(self) -> bool:
        """True while some still wait."""
        return bool(self._state.artifacts_waiting)

    @property
    def in_trouble(self) -> bool:
        """True if an attempt has failed, or found no file ready, since the last file was done."""
        return self._tries > 0

    @property
    def given_up(self) -> bool:
        """True after so many such attempts that a drain leaves the files for another time."""
        return self._tries >= _MOST_TRIES_OF_A_DRAIN

    def send_next(self, *, writers_are_gone: bool) -> bool:
        """Send one file, if one is due.

        Args:
            writers_are_gone: a file that is not there yet will never be completed.

        Returns:
            True if one was sent, or set aside.

        Raises:
            InterruptedUploadError: told to stop.
        """
        if not self.are_left or self._calls.now() < self._try_at:
            return False
        waiting = self._state.artifacts_waiting
        astray = next((path for path in waiting if not stays_within(path)), None)
        if astray is not None:
            return self._done(astray, LEADS_OUT)
        # A file that is still being copied, or never will be, does not delay files that are there.
        ready = (path for path, name in waiting.items() if self._is_there(name, settled=not writers_are_gone))
        path = next(ready, None)
        if path is None:
            if not writers_are_gone:
                self._put_off(None)
                self._try_at = min(self._try_at, self._calls.now() + _LOOK_AGAIN_SECONDS)
                return False
            return self._done(next(iter(waiting)), MISSING)
        file = self._directory / waiting[path]
        outcome = self._backend.send_artifact(self._state.run_id or "", path, file, self._calls.checkpoint)
        if outcome.kind is Kind.OK:
            return self._done(path, None)
        if outcome.kind is Kind.REFUSED:
            return self._done(path, outcome.message or outcome.code or "refused")
        waiting[path] = waiting.pop(path)  # the others come first now: it may be this file alone
        self._put_off(outcome.retry_after)
        self._calls.write_trouble(f"artifact {path}: {outcome.message}", stopped=False)
        return False

    def _is_there(self, name: str, *, settled: bool) -> bool:
        """True if the file is there; ``settled``: and is no hard link to the user's, who may overwrite that."""
        file = self._directory / name
        if not stays_within(name) or not file.is_file():
            return False
        if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(self._directory)):
            return False
        return not settled or file.stat().st_nlink == 1

    def _done(self, path: str, reason: str | None) -> bool:
        del self._state.artifacts_waiting[path]
        if reason is None:
            self._state.artifacts += 1
        else:
            self._state.artifacts_kept[reason] = self._state.artifacts_kept.get(reason, 0) + 1
            self._state.artifacts_kept_first.setdefault(reason, path)
        self._tries = 0
        self._calls.answered()
        self._calls.save()
        return True

    def _put_off(self, retry_after: float | None) -> None:
        self._tries += 1
        self._try_at = self._calls.now() + backoff(self._tries, retry_after, self._rng)
