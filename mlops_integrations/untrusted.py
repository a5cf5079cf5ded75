"""Text of strangers, made fit for a terminal and for a log: what steers a terminal is spelled out. Pure."""

from __future__ import annotations


def escaped(text: str, *, keep: str = "") -> str:
    """The text with its control characters, and others unseen, spelled as Python does; but for those kept."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)
