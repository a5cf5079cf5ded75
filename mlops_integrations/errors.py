"""Our errors, all under one root. Raised at construction, by ``TrackingClient`` and the CLI; never inside training."""

from __future__ import annotations


class MLOpsError(Exception):
    """Root of every error of this package."""


class RunDirectoryError(MLOpsError, OSError):
    """A requested run directory can't be made, found, read or written."""


class ServerError(MLOpsError):
    """The tracking server did not carry out a request.

    Attributes:
        code: the server's own error code, or None.
        status: the HTTP status; None without a reply.
        request_id: the server's id of the request, where it has one.
    """

    def __init__(
        self, message: str, *, code: str | None = None, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.request_id = request_id


class NotFoundError(ServerError):
    """The requested object does not exist on the server."""


class AlreadyExistsError(ServerError):
    """The server already has an object of this name."""


class AccessDeniedError(ServerError):
    """Credentials were rejected (HTTP 401 or 403, or such an error code) or are missing.

    See ``MLFLOW_TRACKING_USERNAME``, ``_PASSWORD`` and ``_TOKEN``.
    """


class UnreachableError(ServerError):
    """No reply, no reply of a tracking server, or a temporary failure; the same call may work later."""


class NotSupportedByServer(ServerError):  # noqa: N818 - the name says what it is
    """This kind of server does not support the request at all."""
