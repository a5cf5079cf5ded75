"""Each endpoint of the 2018 document, asked of each server, compared with the table in ``docs/servers.md``.

``TEST_WRITE_TABLE=1`` writes the column of each server that is tried into the table, instead of comparing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import mlops_integrations as mlops
from mlops_integrations.entities import MetricClause, Param, RunTag
from mlops_integrations.errors import NotSupportedByServer, ServerError
from peer_releases import PEERS
from peer_servers import PeerServer

PAGE = Path(__file__).parents[2] / "docs" / "servers.md"


def asked(client: mlops.TrackingClient, experiment: str, root: Path) -> dict[str, str]:
    """What became of each call."""
    run = client.create_run(experiment).info
    run_id = run.run_id
    artifacts = Path((run.artifact_uri or "").removeprefix("file://"))
    artifacts.mkdir(parents=True, exist_ok=True)
    (artifacts / "f").write_text("f")
    calls: dict[str, Callable[[], object]] = {
        "Create Experiment": lambda: client.create_experiment(f"{root.name}-2"),
        "List Experiments": lambda: list(client.list_experiments()),
        "Get Experiment": lambda: client.get_experiment(experiment),
        "Create Run": lambda: client.create_run(experiment),
        "Get Run": lambda: client.get_run(run_id),
        "Log Metric": lambda: client.log_metric(run_id, "a", 1.0),
        "Log Param": lambda: client.log_param(run_id, "p", "1"),
        "Get Param": lambda: client.get_param(run_id, "p"),
        "Get Metric": lambda: client.get_metric(run_id, "a"),
        "Get Metric History": lambda: list(client.get_metric_history(run_id, "a")),
        "Search Runs": lambda: list(client.search_runs([experiment], MetricClause("a", ">", 0.0))),
        "List Artifacts": lambda: list(client.list_artifacts(run_id)),
        "Get Artifact": lambda: client.download_artifact(run_id, "f", root),
        "Update Run": lambda: client.update_run(run_id, "FINISHED", 1),
        "Set Tag (later)": lambda: client.set_tag(run_id, "k", "v"),
        "Log Batch (later)": lambda: client.log_batch(run_id, (), [Param("q", "1")], [RunTag("l", "v")]),
    }
    return {name: _outcome(call) for name, call in calls.items()}


def _outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except NotSupportedByServer:
        return "not supported"
    except ServerError:
        return "server fails"
    return "yes"


def test_the_table(peer: PeerServer, client: mlops.TrackingClient, experiment: str, tmp_path: Path) -> None:
    """Every cell of this server's column is what the server did."""
    found = asked(client, experiment, tmp_path)
    table = [line for line in PAGE.read_text("utf-8").splitlines() if line.startswith("|")]
    column = list(PEERS).index(peer.peer.version) + 1
    if os.environ.get("TEST_WRITE_TABLE"):
        _write(found, column)
        return
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    assert found == {row[0]: row[column] for row in rows}


def _write(found: dict[str, str], column: int) -> None:
    lines = []
    for line in PAGE.read_text("utf-8").splitlines():
        cells = line.strip("|").split("|")
        if line.startswith("|") and cells[0].strip() in found:
            cells[column] = f" {found[cells[0].strip()]} "
            line = f"|{'|'.join(cells)}|"
        lines.append(line)
    PAGE.write_text("\n".join(lines) + "\n", "utf-8")
