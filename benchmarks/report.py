"""The figures as tables and a plot: ``README.md`` and ``results.json`` here, and the table in the project's README.

``python -m benchmarks.report`` reads what the parts have saved. It computes ratios, and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import HERE, RESULTS, machine, versions

PARTS: Final = ("log_call", "delivery", "loops", "size", "start_stop")
PACKAGES: Final = (
    "mlflow", "lightning", "transformers", "keras", "jax", "torch", "wandb", "trackio", "dvclive", "tensorboard",
    "swanlab", "comet_ml",
)  # fmt: skip
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
README: Final = HERE.parent / "README.md"
Rows = Iterable[Iterable[object]]


def table(header: Iterable[str], rows: Rows) -> str:
    """A table in Markdown."""
    names = list(header)
    lines = [names, ["---"] * len(names), *[[str(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def duration(seconds: float) -> str:
    """With the unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def ratio(value: float) -> str:
    """Two digits."""
    return f"{value:.2g} x" if value < 10 else f"{value:,.0f} x"


def log_calls(found: Mapping[str, Any]) -> str:
    """Ours in every situation, what it is made of, and the peers."""
    parts = []
    for keys, situations in found["here"].items():
        rows = []
        for name, one in situations.items():
            single = one["single calls"]
            cells = [duration(single[key]) for key in ("p50", "p99", "p99.9", "worst")]
            rows.append([name, duration(one["tracker"]), ratio(one["tracker"] / one["os.write"]), *cells])
        header = ("one call", "on average", "to `os.write`", "median", "p99", "p99.9", "worst")
        parts.append(f"### One log call, {keys} key{'s' if int(keys) > 1 else ''}\n\n{table(header, rows)}")
    names = list(next(iter(found["ladder"].values())))
    rows = [[name, *[duration(rung[name]) for rung in found["ladder"].values()]] for name in names]
    header = ("", *[f"{keys} keys" for keys in found["ladder"]])
    text = "What a call is made of: from the clock on each row does one thing more than the row before."
    parts.append(f"### The distance to the floor\n\n{text}\n\n{table(header, rows)}")
    rows = [
        [
            name,
            *[
                cell
                for one in by_keys.values()
                for cell in (duration(one["single calls"]["p50"]), duration(one["single calls"]["p99"]))
            ],
        ]
        for name, by_keys in found["peers"].items()
    ]
    header = ("tracker", "1 key, median", "p99", "10 keys, median", "p99")
    parts.append(f"### Beside others\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def delivery(found: Mapping[str, Any]) -> str:
    """Rates, and how soon a point is seen."""
    raw = found["real"]["raw log-batch posts"]
    rows = [[name, f"{rate:,.0f}", f"{100 * rate / raw:.0f} %"] for name, rate in found["real"].items()]
    ceiling, visible = found["ceiling"], found["visible"]
    at_once = (
        f"A server that answers at once is given {ceiling['points/s']:,.0f} points/s, "
        f"{ceiling['points per CPU second']:,.0f} a CPU second, with {ceiling['peak MB']:.0f} MB."
    )
    seen = (
        f"From `start_run` to the first point's being visible: {duration(visible['first'])}. "
        f"From a later log call: {duration(visible['later, median'])}, at worst {duration(visible['later, worst'])}. "
        f"`finish`: {duration(visible['finish'])}."
    )
    rates = table(("100,000 points to a real MLflow (SQLite)", "points/s", "of raw posts"), rows)
    quick = found["small"]["requests with TCP_QUICKACK"]
    rows = [[name, duration(seconds), ratio(seconds / quick)] for name, seconds in found["small"].items()]
    header = (
        "one small request, kept alive, to MLflow with its 4 workers",
        "median",
        "to `requests` with `TCP_QUICKACK`",
    )
    return "\n\n".join([rates, at_once, seen, table(header, rows)])


def loops(found: Mapping[str, Any]) -> str:
    """Steps per second of real trainings."""
    rows = []
    for loop, names in found.items():
        none = names["none"]["steps/s"]
        for name, one in names.items():
            share = f"{100 * one['steps/s'] / none:.0f} %"
            rows.append([loop, name, f"{one['steps/s']:,.0f}", share, f"{one['p50 ms']:.2f}", f"{one['p99 ms']:.2f}"])
    return table(("loop", "logger", "steps/s", "of none", "step, median ms", "p99 ms"), rows)


def sizes(found: Mapping[str, Any]) -> str:
    """Cost against size."""
    parts = []
    for what, text in (("points", "points, 10 keys a call"), ("keys", "keys a call, 100,000 points")):
        rows = [
            [
                f"{int(count):,}",
                *[duration(one[part]["seconds"]) for part in ("log", "show", "sync")],
                *[f"{one[part]['MB']:.0f}" for part in ("show", "sync")],
                f"{one['log']['MB more']:.1f}",
            ]
            for count, one in found[what].items()
        ]
        header = (text, "log", "`show`", "`sync`", "`show`, MB", "`sync`, MB", "trainer, MB more")
        parts.append(table(header, rows))
    rows = [
        [f"{int(count):,}", *[duration(one[part]["seconds"]) for part in ("runs", "status", "sync")]]
        for count, one in found["runs"].items()
    ]
    parts.append(table(("run directories of 100 points", "`runs`", "`status`", "`sync`"), rows))
    return "\n\n".join(parts)


def start_stop(found: Mapping[str, Any]) -> str:
    """Beginning and ending."""
    rows = [[name, duration(seconds)] for name, seconds in found["imports"].items()]
    rows += [[name, duration(found[name])] for name in ("start_run", "first start_run", "finish, all delivered")]
    rows.append(["side process", f"{found['side process, MB']:.0f} MB"])
    short = found["short runs, no server"]
    rows += [[f"1,000 short runs: {name}", f"{value:.2f}"] for name, value in short.items()]
    installed = [[name, f"{one['packages']:.0f}", f"{one['MB']:.0f}"] for name, one in found["installed"].items()]
    return "\n\n".join([table(("", ""), rows), table(("installed", "packages", "MB"), installed)])


def summary(found: Mapping[str, Any]) -> str:
    """What the project's README shows: the budgets, then the peers."""
    call, real = found["log_call"], found["delivery"]["real"]
    here = call["here"]
    alone = {keys: one["alone"] for keys, one in here.items()}
    busy = here["1"]["beside a busy thread"]["single calls"]
    rate = real["here, side process"]
    small = found["delivery"]["small"]
    share = f"{100 * rate / real['raw log-batch posts']:.0f} % ({rate:,.0f} points/s)"
    rows = [
        ["one log call, 1 key", "2.5 x a bare `os.write`", _call(alone["1"])],
        ["one log call, 10 keys", "4 x", _call(alone["10"])],
        ["1 key, beside a busy Python thread", "p99 10 µs", f"p99 {duration(busy['p99'])}"],
        ["100,000 points to a real MLflow", "95 % of raw posts", share],
        [
            "our own ceiling",
            "500,000 points/s a core",
            f"{found['delivery']['ceiling']['points per CPU second']:,.0f}",
        ],
        ["one small request to MLflow with its 4 workers", "1.5 x `requests` with `TCP_QUICKACK`", _small(small)],
        ["log call to visible", "0.5 s", duration(found["delivery"]["visible"]["later, worst"])],
        ["`import mlops_integrations`", "15 ms", duration(found["start_stop"]["imports"]["mlops_integrations"])],
    ]
    for loop, names in found["loops"].items():
        cheapest = names.get("cheapest local", names["none"])["steps/s"]
        recorded, served = (f"{100 * names[name]['steps/s'] / cheapest:.0f} %" for name in ("here, no server", "here"))
        text = f"{recorded}; {served} with the server on the same cores"
        beside = "with its cheapest local logger" if "cheapest local" in names else "without a logger"
        rows.append([f"{loop}, logging each step", f"as fast as {beside}", text])
    peers = [
        [name, *[duration(one[keys]["single calls"]["p50"]) for keys in ("1", "10")]]
        for name, one in call["peers"].items()
    ]
    return "\n\n".join(
        [
            table(("what", "budget", "measured"), rows),
            table(("one log call, median", "1 key", "10 keys"), peers),
            where(),
        ]
    )


def _call(one: Mapping[str, Any]) -> str:
    return f"{ratio(one['tracker'] / one['os.write'])} (median {duration(one['single calls']['p50'])})"


def _small(one: Mapping[str, float]) -> str:
    here = one["here"]
    alone = f"`requests` alone {duration(one['requests'])}"
    return f"{ratio(here / one['requests with TCP_QUICKACK'])} ({duration(here)}; {alone})"


def where() -> str:
    """Date, machine and versions."""
    on, installed = machine(), versions(*PACKAGES)
    names = ", ".join(f"{name} {version}" for name, version in installed.items())
    return (
        f"Measured {on['date']} on {on['processor']}, {on['cores']} cores, {on['system']}, Python {on['python']}, "
        f"with {names}. Medians; what is compared was measured in turns in the same run (`nox -s bench`)."
    )


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Log calls of all trackers, and the loops, as bars."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
    peers = {name: one["1"]["single calls"]["p50"] * 1e6 for name, one in found["log_call"]["peers"].items()}
    peers = {"bare os.write": found["log_call"]["here"]["1"]["alone"]["os.write"] * 1e6, **peers}
    left.barh(list(peers)[::-1], list(peers.values())[::-1], color="#4477aa")
    left.set_xscale("log")
    left.set_xlabel("µs for one log call of one metric (logarithmic)")
    names = list(dict.fromkeys(name for loop in found["loops"].values() for name in loop))
    for index, (loop, one) in enumerate(found["loops"].items()):
        shares = [100 * one[name]["steps/s"] / one["none"]["steps/s"] if name in one else 0 for name in names]
        right.barh([place + index * 0.27 for place in range(len(names))], shares[::-1], height=0.25, label=loop)
    right.set_yticks([place + 0.27 for place in range(len(names))], names[::-1])
    right.set_xlabel("steps/s, % of the same loop without a logger")
    right.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """All of it."""
    found = {part: json.loads((RESULTS / f"{part}.json").read_text()) for part in PARTS}
    (HERE / "results.json").write_text(
        json.dumps({"machine": machine(), "versions": versions(*PACKAGES), **found}, indent=1) + "\n"
    )
    plot(found, HERE / "results.svg")
    sections = {
        "One log call": log_calls(found["log_call"]),
        "Delivery": delivery(found["delivery"]),
        "The loops": loops(found["loops"]),
        "Size": sizes(found["size"]),
        "Start and stop": start_stop(found["start_stop"]),
    }
    texts = [f"# Benchmarks\n\n{where()}\n\n![The figures](results.svg)\n\n{notes()}"]
    texts += [f"## {title}\n\n{text}" for title, text in sections.items()]
    (HERE / "README.md").write_text("\n\n".join(texts) + "\n")
    before, _, rest = README.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    README.write_text(f"{before}{BEGIN}\n\n{summary(found)}\n\n{END}{after}")


def notes() -> str:
    """What is to be known of the figures, written by hand."""
    return (HERE / "NOTES.md").read_text().strip()


if __name__ == "__main__":
    main()
