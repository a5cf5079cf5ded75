"""The errors we raise at construction, all under one root. Inside training nothing of ours is raised."""

from __future__ import annotations


class MLOpsError(Exception):
    """Root of every error of this package."""


class RunDirectoryError(MLOpsError, OSError):
    """A run directory that was asked for by name can't be made, found or written."""


class LeaseHeldError(MLOpsError):
    """Another uploader is at work in the run directory; the message says which."""


class ServerError(MLOpsError):
    """The tracking server did not do what it was asked for.

    Attributes:
        code: the server's own error code, or None.
        status: the HTTP status; None where no answer came.
        request_id: the server's name for the request, where it has such.
    """

    def __init__(
        self, message: str, *, code: str | None = None, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.request_id = request_id


class NotFoundError(ServerError):
    """The server has no such thing."""


class AlreadyExistsError(ServerError):
    """The server has a thing of this name already."""


class AccessDeniedError(ServerError):
    """The credentials don't do: see ``MLFLOW_TRACKING_USERNAME``, ``_PASSWORD`` and ``_TOKEN``."""


class UnreachableError(ServerError):
    """No answer, or none of a tracking server; the same call may work later."""


class NotSupportedByServer(ServerError):  # noqa: N818 - the name says what it is
    """This kind of server can't do that at all."""
