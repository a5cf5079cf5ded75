"""Takes the secrets of a request out of what a server answers: some servers show there what they were asked. Pure."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterable, Mapping
from typing import Final

_OWN_HEADER_LENGTH: Final = 12
"""What is shorter in a header of the user's is no key."""


_PART_LENGTH: Final = 20
"""What is shorter in a signature is no key, but a word of it."""


_SHORTEST_SECRET: Final = 4


def secrets_of(headers: Mapping[str, str | bytes], own: Iterable[tuple[str, str]]) -> set[bytes]:
    """What proved that a request was ours: the credentials, their parts, and the user's own headers."""
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
    """A field of an error, without secrets; but its code decides, and is no place for any."""
    if not isinstance(value, str) or name in {"code", "error_code"}:
        return value
    return without_secrets(value.encode(errors="replace"), secrets).decode()


def without_secrets(content: bytes, secrets: Iterable[bytes]) -> bytes:
    """The content with each secret masked."""
    for secret in sorted(secrets, key=len, reverse=True):
        content = content.replace(secret, b"***")
    return content
