"""Settings from arguments and the environment, read when a run is created.

Only this module, ``launch`` and the side process (its search path) read ``os.environ``.
An invalid argument raises ``ValueError``. An invalid variable never raises: its default is used, as a rule with a
warning, since a training must not fail because of a typo in a job file.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from mlops_integrations.config import credential_owner, oracle_uri
from mlops_integrations.config.credential_owner import Withheld
from mlops_integrations.config.tracking_uri import split_credentials

logger: Final = logging.getLogger("mlops_integrations")

MODES: Final = ("online", "offline", "disabled")
UPLOADERS: Final = ("process", "thread")
DEVICE_VALUES: Final = ("eager", "lazy")
DEFAULT_ROOT: Final = Path("mlops_runs")
DEFAULT_EXPERIMENT: Final = "Default"
REQUEST_SECONDS: Final = 30.0

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class Access:
    """Access to a server: credentials, certificates, time-outs. Never journaled, never on a command line."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    token_command: str | None = field(default=None, repr=False)
    insecure_tls: bool = False
    server_certificate: str | None = None
    client_certificate: str | None = None
    timeout: float = REQUEST_SECONDS
    """Seconds without a byte from the server before a request counts as failed."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Names and values that are sent with every request."""
    request_auth: str | None = None
    """Name of an MLflow client plugin that signs requests."""
    oracle_auth: str | None = None
    """How requests to Oracle are signed, one of ``oracle_uri.AUTH_KINDS``."""
    oracle_profile: str | None = None
    oracle_config: str | None = None
    """Oracle's configuration file; None: the one in the home directory."""
    withheld: Withheld | None = None
    """The user's credentials that this server does not get."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a run."""

    root: Path
    root_is_explicit: bool
    mode: str
    uploader: str
    device_values: str
    """Whether the log call waits for values on a device ("eager"), or a thread does ("lazy")."""
    tracking_uri: str | None
    """The server's address without credentials; None: record locally."""
    username: str | None
    """Credentials from the tracking URI."""
    password: str | None = field(repr=False)
    experiment_name: str | None
    experiment_id: str | None
    resume: str | None
    finish_timeout: float
    linger: float
    quiet: bool

    @property
    def destination(self) -> str | None:
        """The server that the run is delivered to while it goes on; None: it is only recorded."""
        return self.tracking_uri if self.mode == "online" else None

    def without_secrets(self) -> Settings:
        """Return the settings without secrets, fit to be pickled."""
        return replace(self, username=None, password=None)


def from_arguments(
    *,
    experiment_name: str | None = None,
    experiment_id: str | None = None,
    tracking_uri: str | None = None,
    resume: str | None = None,
    directory: str | os.PathLike[str] | None = None,
    mode: str | None = None,
    uploader: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings: arguments first, then the environment, then the defaults.

    Raises:
        ValueError: an argument is invalid; the message tells what is valid.
    """
    env = os.environ if environ is None else environ
    uri, username, password = _tracking_uri(tracking_uri, env)
    name, number = _experiment(experiment_name, experiment_id, env)
    chosen_mode = _choice("mode", mode, "MLOPS_MODE", MODES, env, "online")
    root = directory if directory is not None else env.get("MLOPS_DIR") or None
    return Settings(
        root=Path(root if root is not None else DEFAULT_ROOT).expanduser().absolute(),
        root_is_explicit=root is not None,
        mode="offline" if chosen_mode == "online" and uri is None else chosen_mode,
        device_values=_choice("device_values", None, "MLOPS_DEVICE_VALUES", DEVICE_VALUES, env, "eager"),
        uploader=_choice("uploader", uploader, "MLOPS_UPLOADER", UPLOADERS, env, "process"),
        tracking_uri=uri,
        username=username,
        password=password,
        experiment_name=name,
        experiment_id=number,
        resume=resume or env.get("MLFLOW_RUN_ID") or None,
        finish_timeout=_seconds("MLOPS_FINISH_TIMEOUT", env, 10.0),
        linger=_seconds("MLOPS_LINGER", env, 600.0),
        quiet=is_true("MLOPS_QUIET", env),
    )


def access(settings: Settings | None = None, environ: Mapping[str, str] | None = None) -> Access:
    """Return the access to the server that the user has named.

    User and password come from the tracking URI, if it had some, else from the environment.
    """
    env = os.environ if environ is None else environ
    insecure = is_true("MLFLOW_TRACKING_INSECURE_TLS", env)
    certificate = env.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or None
    if insecure and certificate:
        logger.warning("mlops: MLFLOW_TRACKING_INSECURE_TLS is ignored, MLFLOW_TRACKING_SERVER_CERT_PATH is set too")
    username, password = env.get("MLFLOW_TRACKING_USERNAME") or None, env.get("MLFLOW_TRACKING_PASSWORD")
    if settings is not None and settings.username is not None:
        username, password = settings.username, settings.password or ""
    return Access(
        username=username,
        password=password,
        token=env.get("MLFLOW_TRACKING_TOKEN") or None,
        token_file=env.get("MLOPS_TOKEN_FILE") or None,
        token_command=env.get("MLOPS_TOKEN_COMMAND") or None,
        insecure_tls=insecure and not certificate,
        server_certificate=certificate,
        client_certificate=env.get("MLFLOW_TRACKING_CLIENT_CERT_PATH") or None,
        timeout=_seconds("MLFLOW_HTTP_REQUEST_TIMEOUT", env, REQUEST_SECONDS) or REQUEST_SECONDS,
        headers=_headers(env),
        request_auth=env.get("MLFLOW_TRACKING_AUTH") or None,
        # Oracle's own variables: those of its SDK and of its command lines.
        oracle_auth=_oracle_auth(env),
        oracle_profile=env.get("OCI_CLI_PROFILE") or None,
        oracle_config=env.get("OCI_CONFIG_FILE") or env.get("OCI_CLI_CONFIG_FILE") or None,
    )


def access_to(destination: str, named: Settings, environ: Mapping[str, str] | None = None) -> Access:
    """Return the access to a server that need not be the user's: credentials go only to the one the user has named.

    Args:
        destination: the server, as a run directory may name it.
        named: settings with the server that the user has named, by argument or by MLFLOW_TRACKING_URI.
        environ: Default: the process's own.
    """
    env = os.environ if environ is None else environ
    full = access(named, env)
    if named.tracking_uri is not None and credential_owner.same_server(destination, named.tracking_uri):
        return full
    return Access(
        insecure_tls=full.insecure_tls,
        server_certificate=full.server_certificate,
        timeout=full.timeout,
        withheld=credential_owner.withheld(destination, named.tracking_uri, env, in_uri=named.username is not None),
    )


def default_root(environ: Mapping[str, str] | None = None) -> Path:
    """Return the directory where run directories are made, and where the command line looks for them."""
    env = os.environ if environ is None else environ
    return Path(env.get("MLOPS_DIR") or DEFAULT_ROOT).expanduser().absolute()


def default_tracking_uri(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the environment's tracking server, without credentials, or None."""
    return _tracking_uri(None, os.environ if environ is None else environ)[0]


def environment_names(destination: str, environ: Mapping[str, str] | None = None) -> bool:
    """True if MLFLOW_TRACKING_URI names this server, so that it gets the credentials of the environment."""
    env = os.environ if environ is None else environ
    try:
        uri, _, _ = split_credentials(env.get("MLFLOW_TRACKING_URI", ""), env)
    except ValueError:
        return False
    return credential_owner.same_server(uri, destination)


def linger(environ: Mapping[str, str] | None = None) -> float:
    """Return the seconds that a side process goes on trying after the run was ended or its process is gone."""
    return _seconds("MLOPS_LINGER", os.environ if environ is None else environ, 600.0)


def side_process_environment(settings: Settings, search_path: str) -> dict[str, str]:
    """Return the side process's environment: ours, with the URI's credentials, and with tracking switched off."""
    env = dict(os.environ) | {"MLOPS_MODE": "disabled", "MLOPS_SEARCH_PATH": search_path}
    if settings.username is not None:
        env |= {"MLFLOW_TRACKING_USERNAME": settings.username, "MLFLOW_TRACKING_PASSWORD": settings.password or ""}
    return env


def is_true(name: str, environ: Mapping[str, str] | None = None) -> bool:
    """True if a variable is switched on: 1, true, yes or on."""
    env = os.environ if environ is None else environ
    return env.get(name, "").strip().lower() in _TRUE


def _tracking_uri(argument: str | None, env: Mapping[str, str]) -> tuple[str | None, str | None, str | None]:
    if argument is not None:
        return split_credentials(argument, env)
    uri = env.get("MLFLOW_TRACKING_URI")
    if not uri:
        return None, None, None
    try:
        return split_credentials(uri, env)
    except ValueError as error:
        logger.warning("mlops: MLFLOW_TRACKING_URI is not used, the run is recorded locally: %s", error)
        return None, None, None


def _experiment(name: str | None, number: str | None, env: Mapping[str, str]) -> tuple[str | None, str | None]:
    if name is not None and number is not None:
        raise ValueError("give experiment_name or experiment_id, not both")
    if name is not None or number is not None:
        return None if name is None else str(name), None if number is None else str(number)
    return env.get("MLFLOW_EXPERIMENT_NAME") or None, env.get("MLFLOW_EXPERIMENT_ID") or None


def _choice(
    name: str, argument: str | None, variable: str, allowed: tuple[str, ...], env: Mapping[str, str], default: str
) -> str:
    if argument is not None:
        if argument not in allowed:
            raise ValueError(f"{name}={argument!r}: use one of {', '.join(map(repr, allowed))}")
        return argument
    value = env.get(variable, "").strip().lower() or default
    if value not in allowed:
        logger.warning("mlops: %s=%r is not one of %s: using %r", variable, value, ", ".join(allowed), default)
        return default
    return value


def _headers(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the headers in ``MLOPS_HEADERS``, a JSON object. The warning does not show it: it may hold secrets."""
    text = env.get("MLOPS_HEADERS", "").strip()
    if not text:
        return ()
    try:
        given = json.loads(text)
        headers = tuple((name, value) for name, value in given.items())
        if all(_HEADER_NAME.fullmatch(name) and value.isascii() and value.isprintable() for name, value in headers):
            return headers
    except (ValueError, AttributeError, RecursionError):
        pass
    logger.warning('mlops: MLOPS_HEADERS is not used: it is no JSON object of headers, as in {"x-team": "vision"}')
    return ()


def _oracle_auth(env: Mapping[str, str]) -> str | None:
    kind = env.get("OCI_CLI_AUTH") or None
    return kind if kind in oracle_uri.AUTH_KINDS else None


def _seconds(variable: str, env: Mapping[str, str], default: float) -> float:
    text = env.get(variable) or ""
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds < float("inf"):
        logger.warning("mlops: %s=%r is no number of seconds: %g is taken", variable, text, default)
        return default
    return seconds
