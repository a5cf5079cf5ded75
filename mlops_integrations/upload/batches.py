"""Gathers journal records into a chunk, and cuts a chunk into requests that a server takes. Pure.

The cursor moves by whole chunks, so a chunk holds whole records: as many of each kind as fit into a request, or a
single one that is larger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, TypeVar

from mlops_integrations.backends.protocol import Batch, Limits, Metric, Text
from mlops_integrations.journal.records import (
    Artifact,
    End,
    Header,
    Losses,
    Metrics,
    Params,
    Record,
    RunSpec,
    Tags,
    not_handled,
)

T = TypeVar("T")

_METRIC_OVERHEAD_BYTES: Final = 110
_TEXT_OVERHEAD_BYTES: Final = 40
_ENVELOPE_BYTES: Final = 1_000


@dataclass(slots=True)
class Chunk:
    """Records that were read and are not yet acknowledged."""

    metrics: list[Metric] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    conflicts: list[Text] = field(default_factory=list)
    """Parameters given again with a different value: the later values."""
    artifacts: list[Artifact] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.metrics or self.params or self.tags or self.conflicts or self.artifacts)

    def has_room(self, record: Record, limits: Limits) -> bool:
        """True if the record fits into the requests that this chunk fills anyway."""
        if isinstance(record, Metrics):
            return not self.metrics or len(self.metrics) + len(record.values) <= limits.metrics
        if isinstance(record, Params):
            return not self.params or len(self.params) + len(record.values) <= limits.params
        if isinstance(record, Tags):
            return not self.tags or len(self.tags) + len(record.values) <= limits.tags
        return True

    def full(self, limits: Limits) -> bool:
        """True if the chunk fills a request."""
        return len(self.metrics) >= limits.metrics or len(self.params) >= limits.params or len(self.tags) >= limits.tags

    def add(self, record: Record) -> None:
        """Add a record; those that are not for the server change nothing."""
        match record:
            case Metrics(time=time):
                self.metrics += [(key, value, time, step) for key, value, step in record.values]
            case Params():
                for key, value in record.values.items():
                    if self.params.setdefault(key, value) != value:
                        self.conflicts.append((key, value))
            case Tags():
                self.tags.update(record.values)
            case Artifact():
                self.artifacts.append(record)
            case Header() | RunSpec() | Losses() | End():
                pass
            case _:
                not_handled(record)


def requests_of(chunk: Chunk, limits: Limits) -> Iterator[Batch]:
    """Cut the chunk into requests: parameters, tags, metrics, each apart, none too large in number or bytes."""
    for params in _cut(list(chunk.params.items()), limits.params, limits.request_bytes, _text_bytes):
        yield Batch(params=params)
    for tags in _cut(list(chunk.tags.items()), limits.tags, limits.request_bytes, _text_bytes):
        yield Batch(tags=tags)
    for metrics in _cut(chunk.metrics, limits.metrics, limits.request_bytes, _metric_bytes):
        yield Batch(metrics=metrics)


def _cut(items: Sequence[T], most: int, most_bytes: int, size: Callable[[T], int]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), most):
        part = items[start : start + most]
        sizes = [size(item) for item in part]
        if sum(sizes) + _ENVELOPE_BYTES <= most_bytes:
            yield part
            continue
        begin, used = 0, _ENVELOPE_BYTES
        for index, item_bytes in enumerate(sizes):
            if used + item_bytes > most_bytes and index > begin:
                yield part[begin:index]
                begin, used = index, _ENVELOPE_BYTES
            used += item_bytes
        yield part[begin:]


def _metric_bytes(metric: Metric) -> int:
    return _name_bytes(metric[0]) + _METRIC_OVERHEAD_BYTES


def _text_bytes(text: Text) -> int:
    return _json_bytes(text[0]) + _json_bytes(text[1]) + _TEXT_OVERHEAD_BYTES


def _json_bytes(text: str) -> int:
    # Escapes make at most six bytes of a control character, UTF-8 at most four of any other.
    if text.isascii() and text.isprintable():
        return len(text) + text.count('"') + text.count("\\")
    return 6 * len(text)


# A run has few names and many points.
_name_bytes: Final = lru_cache(maxsize=4_096)(_json_bytes)
