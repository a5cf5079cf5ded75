"""What of a batch is known to be refused, before the server is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlops_integrations.backends.protocol import Batch, Limits
from mlops_integrations.upload.fitting import NOT_FINITE, fit, shorter_texts

LIMITS = Limits(metrics=10, params=10, tags=10, request_bytes=3_000, param_length=5, tag_length=3)


def fault_of(name: str) -> str | None:
    """A server that dislikes two kinds of names."""
    return {"!": "odd sign", " ": "blank"}.get(name[-1])


def test_what_fits_is_left_as_it_is() -> None:
    """Words for numbers and line breaks, too, where the server has nothing against them."""
    batch = Batch([("loss", "NaN", 1, 2)], [("lr", "0.1\n2")], [("team", "a\rb")])

    fitted = fit(batch, LIMITS, fault_of, "mlflow")

    assert (fitted.batch, list(fitted.rejected), fitted.shortened) == (batch, [], 0)


def test_names_are_taken_out_by_their_faults() -> None:
    """Each fault has all of its items, of every kind; the rest goes on."""
    batch = Batch(
        [("a!", 1.0, 1, 1), ("b", 1.0, 1, 1), ("a!", 2.0, 2, 2)], [("c ", "x"), ("d", "y")], [("e!", "z"), ("f", "z")]
    )

    fitted = fit(batch, LIMITS, fault_of, "mlflow")

    assert fitted.batch == Batch([("b", 1.0, 1, 1)], [("d", "y")], [("f", "z")])
    assert {part.reason: part.items for part in fitted.rejected} == {
        "odd sign": Batch([("a!", 1.0, 1, 1), ("a!", 2.0, 2, 2)], [], [("e!", "z")]),
        "blank": Batch([], [("c ", "x")], []),
    }
    assert all(part.message == part.reason for part in fitted.rejected)


def test_words_are_no_numbers_where_only_finite_ones_are_taken() -> None:
    """The message says what the server speaks; a word of a refused name is counted once, by its name."""
    batch = Batch([("a", "NaN", 1, 1), ("b", 1.0, 1, 1), ("c!", "Infinity", 1, 1)])

    fitted = fit(batch, replace(LIMITS, finite=True), fault_of, "oracle")

    assert fitted.batch.metrics == [("b", 1.0, 1, 1)]
    assert [(part.reason, part.message, part.items.metrics) for part in fitted.rejected] == [
        ("odd sign", "odd sign", [("c!", "Infinity", 1, 1)]),
        (NOT_FINITE, "oracle takes finite numbers only", [("a", "NaN", 1, 1)]),
    ]


@pytest.mark.parametrize(
    ("value", "one_line", "param", "tag", "shortened"),
    [
        ("abc", True, "abc", "abc", 0),
        ("abcd", False, "abcd", "abc", 1),
        ("abcdef", False, "abcde", "abc", 2),
        ("a\nb", False, "a\nb", "a\nb", 0),
        ("a\r", True, "a\\r", "a\\r", 2),
        ("a\nbcd", True, "a\\nbc", "a\\n", 2),
    ],
)
def test_texts_are_cut(value: str, one_line: bool, param: str, tag: str, shortened: int) -> None:
    """To the lengths of parameters and of tags, and to one line; a text that is changed in both ways counts once."""
    batch = Batch(params=[("p", value)], tags=[("t", value)])

    fitted = fit(batch, replace(LIMITS, one_line=one_line), fault_of, None)

    assert (fitted.batch.params, fitted.batch.tags) == ([("p", param)], [("t", tag)])
    assert fitted.shortened == shortened


@pytest.mark.parametrize(
    ("length", "lengths"), [(250, []), (251, [250]), (600, [500, 250]), (9_000, [5_000, 500, 250])]
)
def test_shorter_texts(length: int, lengths: list[int]) -> None:
    """Only lengths below that of the text are worth asking for."""
    text = "x" * length

    params = [shorter.params for shorter in shorter_texts(Batch(params=[("p", text)]))]
    tags = [shorter.tags for shorter in shorter_texts(Batch(tags=[("t", text)]))]

    assert params == [[("p", text[:most])] for most in lengths]
    assert tags == [[("t", text[:most])] for most in lengths]


def test_metrics_can_not_be_shortened() -> None:
    """They have no text."""
    assert list(shorter_texts(Batch([("a" * 9_000, 1.0, 1, 1)]))) == []
