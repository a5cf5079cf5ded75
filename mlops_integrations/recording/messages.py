"""Messages to the user, on stderr through the logger ``mlops_integrations``, each of them once.

We install no handler: without one, Python prints warnings as plain text. So every message is a warning.
"""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Final

from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.filesystem import network_file_system
from mlops_integrations.untrusted import escaped

logger: Final = logging.getLogger("mlops_integrations")

_MOST_OF_A_KIND: Final = 5


class Messages:
    """The messages about one run."""

    def __init__(self, directory: Path, *, quiet: bool, silent: bool = False) -> None:
        self._silent = silent
        self._directory = directory
        self._quiet = quiet
        self._said: set[str] = set()

    def once(self, what: str, message: str, *arguments: object) -> None:
        """Warn, unless a message with the name ``what`` was given before."""
        if what not in self._said and not self._silent:
            self._said.add(what)
            text = message % arguments if arguments else message
            # Keys may come from a stranger's file, and the message goes to a terminal.
            logger.warning("mlops: %s", escaped(text))

    def once_per(self, what: str, about: str, message: str, *arguments: object, every: bool = False) -> None:
        """As ``once``, but for each of the first few values of ``about``; with ``every``, for each of them."""
        if every or not about or sum(said.startswith(f"{what}: ") for said in self._said) < _MOST_OF_A_KIND:
            self.once(f"{what}: {about}", message, *arguments)

    def always(self, message: str, *arguments: object) -> None:
        """Warn, each time."""
        self._said.discard(message)
        self.once(message, message, *arguments)

    def started(self, label: str, destination: str | None, experiment: str | None, *, delivers: bool) -> None:
        """The first line of a run: where it is recorded, and where it goes."""
        kind = network_file_system(self._directory)
        if kind is not None:
            text = "%s lies on a network file system (%s): log calls wait for it; MLOPS_DIR moves runs elsewhere"
            self.once("network", text, self._directory, kind)
        if self._quiet:
            return
        goes = "(no tracking server; `mlops-integrations sync DIR --to URI` delivers it later)"
        if destination is not None:
            goes = f"(offline: `sync` delivers it to {destination} later)"
        if delivers:
            goes = f"-> {destination} (experiment {experiment})"
        self.once("where", "recording %s in %s %s", label, self._directory, goes)

    def server_news(self, state: Cursor) -> None:
        """Report news in the cursor that was not reported yet: the link, trouble, refusals."""
        if state.url is not None and not self._quiet:
            self.once("link", "view run at %s", state.url)
        for note in state.notes:
            self.once(note, "%s", note)
        if state.trouble is not None:
            self._trouble(state)
        for reason, count in state.refused.items():
            self.once(
                f"refused {reason}",
                "not taken by the server: %d so far, the first is %r: %s. They stand in %s, the rest goes on",
                count,
                state.refused_first.get(reason, ""),
                reason,
                self._directory / "refused.jsonl",
            )
        for reason, count in state.artifacts_kept.items():
            text = "artifacts not sent: %d so far, the first is %r: %s. They stay in %s"
            first = state.artifacts_kept_first.get(reason, "")
            self.once(f"kept {reason}", text, count, first, reason, self._directory / "artifacts")
        for twin in state.deleted_twins:
            text = "a lost reply had left a second, empty run on the server: %s was deleted there"
            self.once(f"twin {twin}", text, twin)
        if state.doubled:
            text = "%d values so far were sent once more, the server had forgotten the first time: perhaps twice there"
            self.once("doubled", text, state.doubled)
        if state.shortened:
            text = "texts are cut to the server's limit there, or put on one line; the journal has them as they are"
            self.once("shortened", text)

    def _trouble(self, state: Cursor) -> None:
        assert state.trouble is not None
        if state.trouble.stopped:
            self.once(f"stopped {state.trouble.message}", "delivery has stopped: %s", state.trouble.message)
        else:
            name = state.trouble.request_id
            self.once_per(
                "trouble",
                state.trouble.message,
                "%s does not take the records (%s). Training goes on, they are kept in %s, and delivery is tried again",
                state.destination,
                state.trouble.message if name is None else f"{state.trouble.message}, request {name}",
                self._directory,
            )

    def undelivered(self, delivered: int, total: int, destination: str | None, *, named: bool = True) -> None:
        """Give the last line of a run that is not all delivered, with the command that delivers the rest.

        Args:
            delivered: number of points that are delivered.
            total: number of points that were logged.
            destination: the server's URI.
            named: whether the environment names that server, too; else the command has to, or it sends no credentials.
        """
        to = None if named else destination
        missing = "" if delivered < total else ", but not all of the run's parameters, tags, files and status"
        logger.warning(
            "mlops: %s of %s points delivered%s. The rest: %s",
            f"{delivered:,}",
            f"{total:,}",
            missing,
            escaped(sync_command(self._directory, to)),
        )
        self.once("another server", "the destination is %s; --to URI delivers to another server", destination)


def sync_command(directory: Path, to: str | None = None) -> str:
    """The shell command that delivers a run directory, to the server that it was recorded for or to the one named."""
    named = [] if to is None else ["--to", to]
    return shlex.join([sys.executable or "python", "-m", "mlops_integrations", "sync", str(directory), *named])
