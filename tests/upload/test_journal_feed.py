"""From journal files to chunks: each record in one of them, and the positions never ahead of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec import structs

from mlops_integrations.backends.protocol import Limits
from mlops_integrations.errors import RunDirectoryError
from mlops_integrations.journal.cursor import Cursor
from mlops_integrations.journal.records import Header, Metrics
from mlops_integrations.journal.rundir import RunDirectory
from mlops_integrations.journal.writer import JournalWriter
from mlops_integrations.upload.journal_feed import JournalFeed

LIMITS = Limits(metrics=4, params=4, tags=4, request_bytes=3_000, param_length=5, tag_length=3)

Record = Callable[..., JournalWriter]


def steps(feed: JournalFeed) -> list[int]:
    """The steps of the points in the chunk, which is taken."""
    return [step for _, _, _, step in feed.take().metrics]


def sizes(run: RunDirectory) -> dict[str, int]:
    """How long each journal file is."""
    return {path.name: path.stat().st_size for path in run.journals()}


def test_chunks_are_requests(run: RunDirectory, record: Record) -> None:
    """Read to a request's worth each time, and the last one to the end of the file."""
    record(10).close()
    feed = JournalFeed(run, Cursor("http://server"))

    found = [(feed.fill(LIMITS), steps(feed)) for _ in range(4)]
    feed.close()

    assert found == [(True, [0, 1, 2, 3]), (True, [4, 5, 6, 7]), (False, [8, 9]), (False, [])]
    assert feed.positions == sizes(run)


def test_a_record_without_room_waits(run: RunDirectory, record: Record) -> None:
    """The position stays before it while it waits, so that a later uploader reads it again."""
    journal = record(3, end=False)
    before = sizes(run)
    journal.append(Metrics(2_000, [("a", 1.0, 7), ("b", 1.0, 7)]))
    journal.close()
    feed = JournalFeed(run, Cursor("http://server"))

    assert feed.fill(LIMITS)
    assert feed.positions == before
    assert feed.fill(LIMITS)  # nothing was taken: it has no room yet
    assert feed.positions == before
    assert steps(feed) == [0, 1, 2]
    assert not feed.fill(LIMITS)
    feed.close()

    assert steps(feed) == [7, 7]
    assert feed.positions == sizes(run)


def test_reading_begins_at_the_cursor(run: RunDirectory, record: Record) -> None:
    """And what was read since then is ahead of it, until the cursor has moved."""
    journal = record(2, end=False)
    state = Cursor("http://server", positions=sizes(run))
    journal.append(Metrics(2_000, [("loss", 1.0, 7)]))
    journal.close()
    feed = JournalFeed(run, state)

    assert not feed.is_ahead
    feed.fill(LIMITS)
    feed.close()

    assert steps(feed) == [7]
    assert feed.is_ahead
    state.positions.update(feed.positions)
    assert not feed.is_ahead


def test_a_chunk_is_read_again_up_to_its_end(run: RunDirectory, record: Record) -> None:
    """Whatever has come into its files and beside them since then."""
    journal = record(2, end=False)
    until = sizes(run)
    journal.append(Metrics(2_000, [("loss", 1.0, 7)]))
    journal.close()
    record(1, key="other", first=8).close()
    feed = JournalFeed(run, Cursor("http://server"))

    feed.fill(LIMITS, until)

    assert steps(feed) == [0, 1]
    assert {name: feed.positions[name] for name in until} == until
    feed.fill(LIMITS)
    feed.close()
    assert steps(feed) == [7, 8]


def test_bad_lines_are_counted_with_those_of_files_that_were_closed(run: RunDirectory, record: Record) -> None:
    """And with those that the cursor knew of."""
    for key in ("a", "b"):
        journal = record(1, key=key)
        journal.close()
        with run.journals()[-1].open("ab") as file:
            file.write(b"no record\n")
    feed = JournalFeed(run, Cursor("http://server", bad_lines=5))

    assert not feed.fill(LIMITS)
    feed.close()

    assert feed.bad_lines == 7


def test_a_torn_end_is_passed_over_once(run: RunDirectory, record: Record) -> None:
    """It is left alone until it is known that nobody completes it, and counted as one bad line."""
    record(1, end=False).close()
    (journal,) = run.journals()
    with journal.open("ab") as file:
        file.write(b'{"half')
    feed = JournalFeed(run, Cursor("http://server"))
    feed.fill(LIMITS)
    assert feed.positions[journal.name] == journal.stat().st_size - len(b'{"half')
    assert feed.bad_lines == 0

    feed.pass_over_torn_ends()
    feed.pass_over_torn_ends()
    feed.close()

    assert feed.positions == sizes(run)
    assert feed.bad_lines == 1


def test_the_run_is_what_its_newest_file_says(run: RunDirectory, record: Record, header: Header) -> None:
    """A run that is re-opened while it is delivered may have got another parent."""
    record(1).close()
    feed = JournalFeed(run, Cursor("http://server"))
    feed.fill(LIMITS)
    spec = structs.replace(feed.spec, parent="mlops-parent")
    JournalWriter(run.path, header, spec).close()

    feed.fill(LIMITS)
    feed.close()

    assert feed.spec.parent == "mlops-parent"


def test_no_run_directory(tmp_path: Path) -> None:
    """That is said at once, not when it is read."""
    with pytest.raises(RunDirectoryError, match="no journal file"):
        JournalFeed(RunDirectory(tmp_path), Cursor("http://server"))
