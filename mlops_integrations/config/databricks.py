"""Databricks as a tracking server: ``databricks`` or ``databricks://PROFILE`` stand for a workspace's host and token.

They come from ``DATABRICKS_HOST`` and ``DATABRICKS_TOKEN``, or from the configuration file of Databricks' own tools. A
personal access token is sent as the password of the user "token", which Databricks accepts besides a bearer token.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

USER: Final = "token"


def is_meant(uri: str) -> bool:
    """True if a tracking URI names a Databricks workspace in this way."""
    return uri.strip() == "databricks" or uri.strip().startswith("databricks://")


def workspace(uri: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the workspace's address and its token.

    Raises:
        ValueError: one of them is not found; the message says where it is looked for.
    """
    profile = urlsplit(uri.strip()).netloc or environ.get("DATABRICKS_CONFIG_PROFILE") or ""
    host, token = environ.get("DATABRICKS_HOST"), environ.get("DATABRICKS_TOKEN")
    if profile or not host or not token:
        file = Path(environ.get("DATABRICKS_CONFIG_FILE") or "~/.databrickscfg").expanduser()
        section = profile or "DEFAULT"
        host, token = _of_file(file, section)
        if not host or not token:
            raise ValueError(
                f"tracking URI {uri!r}: {file} has no host and token in its section [{section}]; "
                "set DATABRICKS_HOST and DATABRICKS_TOKEN, or add them there"
            )
    address = host.rstrip("/")
    return address if "://" in address else f"https://{address}", token


def _of_file(file: Path, section: str) -> tuple[str | None, str | None]:
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(file, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):  # its text may hold the token
        raise ValueError(f"{file} can't be read as a configuration file") from None
    if section != "DEFAULT" and not config.has_section(section):
        return None, None
    return config[section].get("host"), config[section].get("token")
