"""What the records of a run say, taken together."""

from __future__ import annotations

from mlops_integrations.journal.records import End, Losses, Params, Record, Tags


def merged(records: list[Record], kind: type[Params] | type[Tags]) -> dict[str, str]:
    """Parameters or tags of all calls together."""
    found: dict[str, str] = {}
    for record in records:
        if isinstance(record, kind):
            found |= record.values
    return found


def losses(records: list[Record]) -> dict[str, int]:
    """What the last journal says was lost."""
    return [record.counts for record in records if isinstance(record, Losses)][-1]


def end_of(records: list[Record]) -> End:
    """The last record, which must be an end."""
    assert isinstance(records[-1], End)
    return records[-1]
