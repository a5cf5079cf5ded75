"""Removes a request's secrets from the server's reply: some servers echo the request in it. Pure."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

_OWN_HEADER_LENGTH: Final = 12
"""Shorter values of user-set headers are no keys."""


_PART_LENGTH: Final = 20
"""Shorter parts of a signature are no keys, but words."""


_SHORTEST_SECRET: Final = 4


def secrets_of(headers: Mapping[str, str | bytes], own: Iterable[tuple[str, str]]) -> set[bytes]:
    """Return a request's secrets: the credentials, their parts, and the values of user-set headers."""
    proof = headers.get("Authorization", b"")
    whole = proof if isinstance(proof, bytes) else proof.encode()
    scheme, _, rest = whole.partition(b" ")
    found = {whole, rest} | {part for part in re.split(rb'[\s,"]+', rest) if len(part) >= _PART_LENGTH}
    if scheme == b"Basic":
        with contextlib.suppress(ValueError):
            found.add(base64.b64decode(rest).partition(b":")[2])
    found |= {value.encode() for _, value in own if len(value) >= _OWN_HEADER_LENGTH}
    return {secret for secret in found if len(secret) >= _SHORTEST_SECRET}


def told(name: str, value: object, secrets: Iterable[bytes]) -> object:
    """A field of an error without secrets. Its code stays: it decides what happens next, and holds no secrets."""
    if not isinstance(value, str) or name in {"code", "error_code"}:
        return value
    return without_secrets(value.encode(errors="replace"), secrets).decode()


def without_secrets(content: bytes, secrets: Iterable[bytes]) -> bytes:
    """The content with each secret masked."""
    for secret in sorted(secrets, key=len, reverse=True):
        content = content.replace(secret, b"***")
    return content
