"""Fits a batch to the known limits of a server. Pure: items that can't be sent are returned with the reason.

Names that it refuses and numbers that it can't hold are taken out; texts are cut to the length that it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mlops_integrations.backends.protocol import Batch, Limits, Text

NOT_FINITE: Final = "not a finite number"
_OLDER_LENGTHS: Final = (5_000, 500, 250)
"""Longest texts that older servers keep, in characters: tried in turn when a text is refused."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Items of a batch that the server surely refuses, with the reason to count by and the full message."""

    items: Batch
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """A batch after fitting."""

    batch: Batch
    rejected: Sequence[Rejected]
    shortened: int
    """How many texts were cut, or had their line breaks replaced."""


def fit(batch: Batch, limits: Limits, name_fault: Callable[[str], str | None], dialect: str | None) -> Fitted:
    """Return the batch without surely refused items, and with its texts cut to the length that the server keeps.

    Args:
        batch: one request's worth.
        limits: the server's.
        name_fault: why the server would refuse a name, or None.
        dialect: the server's dialect, for the messages.
    """
    names = {item[0] for part in (batch.metrics, batch.params, batch.tags) for item in part}
    faults = {name: name_fault(name) for name in names}
    rejected = [
        Rejected(_of_names(batch, {name for name in names if faults[name] == fault}), fault, fault)
        for fault in sorted({fault for fault in faults.values() if fault is not None})
    ]
    good = _of_names(batch, {name for name in names if faults[name] is None})
    metrics = good.metrics
    if limits.finite:
        words = [metric for metric in metrics if isinstance(metric[1], str)]
        rejected.append(Rejected(Batch(words), NOT_FINITE, f"{dialect} takes finite numbers only"))
        metrics = [metric for metric in metrics if not isinstance(metric[1], str)]
    params = [_cut(param, limits.param_length, one_line=limits.one_line) for param in good.params]
    tags = [_cut(tag, limits.tag_length, one_line=limits.one_line) for tag in good.tags]
    pairs = [*zip(good.params, params, strict=True), *zip(good.tags, tags, strict=True)]
    return Fitted(Batch(metrics, params, tags), rejected, sum(before != after for before, after in pairs))


def shorter_texts(batch: Batch) -> Iterator[Batch]:
    """Yield the one text of a batch, cut to ever shorter lengths, where it is longer than that."""
    for length in _OLDER_LENGTHS:
        params = [(key, value[:length]) for key, value in batch.params if len(value) > length]
        tags = [(key, value[:length]) for key, value in batch.tags if len(value) > length]
        if params or tags:
            yield Batch(params=params, tags=tags)


def _of_names(batch: Batch, names: set[str]) -> Batch:
    return Batch(
        [item for item in batch.metrics if item[0] in names],
        [item for item in batch.params if item[0] in names],
        [item for item in batch.tags if item[0] in names],
    )


def _cut(text: Text, length: int, *, one_line: bool) -> Text:
    key, value = text
    if one_line:
        value = value.replace("\n", "\\n").replace("\r", "\\r")
    return key, value[:length]
