"""The conservation oracle: what was acknowledged to a training is what the server holds, whatever happened between.

A log call that has returned is an obligation. At the end the server holds each once and payload for payload, in one
run with the right status, and nothing else but calls that a kill has caught on their way.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from mlops_integrations.journal.records import Metrics, Params, Tags
from mlops_integrations.recording.run import Run
from real_mlflow import comparable
from strict_store import Point, Store

LogCall: TypeAlias = Metrics | Params | Tags

START = 1_700_000_000_000
POISON = "poison"
"""A metric that the server refuses."""
BAD_NAME = "bad@name"
"""A metric that every server refuses, which the client knows."""

TRIED: dict[str, Counter[str]] = {}
"""What was tried, by test: for the summary."""


def seeds(default: int, share: int = 1) -> Sequence[int]:
    """The seeds to try: ``FAULT_SEED`` names one, ``FAULT_SEEDS`` says how many instead of ``default``.

    Args:
        default: how many in CI.
        share: of so many seeds that are asked for, one is tried: for what takes longer.
    """
    if one := os.environ.get("FAULT_SEED"):
        return [int(one)]
    wanted = os.environ.get("FAULT_SEEDS")
    return range(default if wanted is None else max(1, int(wanted) // share))


def again(test: str, seed: int) -> str:
    """The command that tries a seed again."""
    return f"again: FAULT_SEED={seed} python -m pytest tests/faults -k {test}"


def log_calls(seed: int, count: int, *, poison: bool = False) -> Iterator[LogCall]:
    """What a training logs: the same for a seed, each payload unlike any other."""
    rng = random.Random(f"calls {seed}")
    keys = ["train/loss", "val/acc 1", "точность", "gpu:0.util", "损失"]
    for number in range(count):
        at, kind = START + number, rng.random()
        if kind < 0.06:
            yield Params(at, {f"p{number}.{each}": _text(rng) for each in range(rng.choice([1, 1, 3, 120]))})
        elif kind < 0.12:
            yield Tags(at, {f"tag {rng.randrange(5)}": f"{number} {_text(rng)}"})
        else:
            step = number if rng.random() < 0.95 else rng.choice([-number, 2**63 - 1 - number, -(2**63) + number])
            chosen = rng.sample(keys, rng.randint(1, 5)) if rng.random() < 0.97 else [f"m{n}" for n in range(200)]
            values = [(key, _value(rng), step) for key in chosen]
            if poison and rng.random() < 0.01:
                values.append((rng.choice([POISON, BAD_NAME]), float(number), step))
            yield Metrics(at, values)


def _value(rng: random.Random) -> float | str:
    if rng.random() < 0.03:
        return rng.choice(["NaN", "Infinity", "-Infinity"])
    return rng.choice([rng.gauss(0.0, 1.0), rng.gauss(0.0, 1.0) * 10.0 ** rng.randint(-300, 300), 0.0, 5e-324, 1.0])


def _text(rng: random.Random) -> str:
    return "".join(rng.choices("abcя损 \n\"\\'<&", k=rng.randint(0, 20)))


@dataclass
class Content:
    """Metrics, parameters and tags of a run."""

    points: set[Point] = field(default_factory=set)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def take(self, call: LogCall) -> None:
        """Add one log call."""
        if isinstance(call, Metrics):
            self.points |= {(key, value, call.time, step) for key, value, step in call.values}
        elif isinstance(call, Params):
            self.params |= call.values
        else:
            self.tags |= call.values

    def in_sql(self) -> Content:
        """As MLflow's SQL stores keep it."""
        points = {(key, comparable(float(value)), at, step) for key, value, at, step in self.points}
        return Content(points, self.params, self.tags)

    def pop_poison(self) -> set[Point]:
        """Those points that the server refuses, which are no longer part of this."""
        poison = {point for point in self.points if point[0] in {POISON, BAD_NAME}}
        self.points -= poison
        return poison


@dataclass
class Held:
    """What a server holds of a uid."""

    runs: int
    """Runs that are not deleted."""
    copies: Counter[Point]
    params: dict[str, str]
    tags: dict[str, str]
    status: str
    reason: str | None


def held_by(store: Store) -> Callable[[str], Held]:
    """What a store of our own has of a uid."""

    def look(uid: str) -> Held:
        runs = store.runs_of(uid)
        run = runs[0]
        copies = Counter({point: store.copies[run.run_id, point] for point in run.metrics})
        return Held(len(runs), copies, run.params, run.tags, run.status, run.tags.get("mlops.exit.reason"))

    return look


def differences(acknowledged: Content, on_their_way: Sequence[LogCall], held: Held) -> list[str]:
    """What is wrong, in words; nothing, if all is conserved.

    Args:
        acknowledged: the log calls that have returned.
        on_their_way: those that a kill has caught: they may be there or not.
        held: what the server has.
    """
    maybe = Content()
    for call in on_their_way:
        maybe.take(call)
    found = set(held.copies)
    wrong = [f"{held.runs} runs"] * (held.runs != 1)
    wrong += _said("lost", acknowledged.points - found)
    wrong += _said("never logged", found - acknowledged.points - maybe.points)
    wrong += _said("twice", {point for point, copies in held.copies.items() if copies > 1})
    for kind, logged, unsure, there in (
        ("param", acknowledged.params, maybe.params, held.params),
        ("tag", acknowledged.tags, maybe.tags, held.tags),
    ):
        ours = {key: value for key, value in there.items() if not key.startswith(("mlflow.", "mlops."))}
        allowed = {key for key, value in ours.items() if value == unsure.get(key)}
        wrong += _said(f"lost {kind}", {item for item in logged.items() if item[0] not in ours})
        wrong += _said(f"wrong {kind}", set(ours.items()) - set(logged.items()) - {(key, ours[key]) for key in allowed})
    return wrong


def _said(what: str, items: set[tuple[str, str]] | set[Point]) -> list[str]:
    return [f"{len(items)} {what}, such as {min(items, key=repr)!r}"] if items else []


def perform(run: Run, call: LogCall) -> None:
    """Log it, as a user does."""
    if isinstance(call, Metrics):
        values = {key: float(value) for key, value, _ in call.values}
        run.log_metrics(values, step=call.values[0][2], timestamp=call.time)
    elif isinstance(call, Params):
        run.log_params(call.values)
    else:
        run.set_tags(call.values)
