"""Credentials for a server, which are read again when it refuses them."""

from __future__ import annotations

import base64
import logging
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

from requests import PreparedRequest, RequestException
from requests.auth import AuthBase

from mlops_integrations.config.settings import Access

logger: Final = logging.getLogger(__name__)

_COMMAND_SECONDS: Final = 30.0


class NotSignedError(RequestException):
    """No request was sent, since it could not be signed. The message says why and what to do."""


class Signs(Protocol):
    """Signs requests: adds the proof of who sends them."""

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Sign a request.

        Raises:
            NotSignedError: signing is not possible.
        """

    def refresh(self) -> bool:
        """Read the credentials again after they were refused; True if another try may help."""


class Credentials(AuthBase):
    """Puts the ``Authorization`` header on requests.

    User and password (they win over a token, as in MLflow), else the token of a file or a command (read again by
    ``refresh``), else a fixed token, else nothing.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._header: str | None = None
        self.refresh()

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Add the header; called by ``requests``."""
        if self._header is not None:
            request.headers["Authorization"] = self._header
        return request

    def refresh(self) -> bool:
        """Read the credentials again; True if they have changed."""
        before, self._header = self._header, self._read()
        return self._header != before

    def _read(self) -> str | None:
        access = self._access
        if access.username is not None and access.password is not None:
            return "Basic " + base64.b64encode(f"{access.username}:{access.password}".encode()).decode()
        if access.token_file:
            token = _token_of_file(access.token_file)
        elif access.token_command:
            token = _token_of_command(access.token_command)
        else:
            token = access.token
        if token and not _fits_header(token):
            logger.warning("mlops: the token holds more than a token: it is not used")
            token = None
        return f"Bearer {token}" if token else self._header


class PluginCredentials:
    """Signs with a plugin of MLflow's own client, named by ``MLFLOW_TRACKING_AUTH`` and loaded when first used."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._sign: Callable[[PreparedRequest], Any] | None = None

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Let the plugin sign."""
        self._sign = self._sign or fetch_plugin(self._name)
        self._sign(request)
        return request

    def refresh(self) -> bool:
        """Drop the plugin: the next request loads it again."""
        self._sign = None
        return True


def fetch_plugin(name: str) -> Callable[[PreparedRequest], Any]:
    """Return the signing function of a plugin of MLflow's own client.

    Raises:
        NotSignedError: mlflow or the plugin is missing, or it gives no signer; MLflow itself would only warn.
    """
    try:
        from mlflow.tracking.request_auth.registry import fetch_auth
    except ImportError:
        raise NotSignedError(
            f"MLFLOW_TRACKING_AUTH={name} names a plugin of the package mlflow, which is not installed here"
        ) from None
    try:
        sign = fetch_auth(name)
    except Exception as error:  # a plugin is foreign code and may raise anything: then nothing is signed
        raise NotSignedError(f"MLFLOW_TRACKING_AUTH={name}: {type(error).__name__}: {error}") from error
    if not callable(sign):
        raise NotSignedError(f"MLFLOW_TRACKING_AUTH={name}: MLflow knows no plugin of this name here")
    return sign  # type: ignore[no-any-return,unused-ignore]


def _fits_header(token: str) -> bool:
    return token.isascii() and token.isprintable()


def _token_of_file(path: str) -> str | None:
    try:
        return Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("mlops: MLOPS_TOKEN_FILE can't be read: %s", error)
        return None


def _token_of_command(command: str) -> str | None:
    try:
        answer = subprocess.run(
            shlex.split(command), capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        # The command's text and output may hold a secret: only the kind of failure is logged.
        logger.warning("mlops: MLOPS_TOKEN_COMMAND failed: %s", type(error).__name__)
        return None
    return answer.stdout.strip()
