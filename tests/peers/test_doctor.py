"""``doctor`` tells of each server what it is, and writes only when it is told to."""

from __future__ import annotations

import pytest

import mlops_integrations as mlops
from mlops_integrations.cli.arguments import main
from peer_servers import PeerServer


def test_looking(peer: PeerServer, client: mlops.TrackingClient, capsys: pytest.CaptureFixture[str]) -> None:
    """Dialect, limits, clock, artifacts; nothing is made."""
    before = {experiment.name for experiment in client.list_experiments()}
    assert main(["doctor", peer.uri]) == 0
    told = capsys.readouterr().out
    assert f"dialect        {peer.peer.dialect}\n" in told
    assert "as this machine's" in told
    assert ("keeps no steps" in told) == (not peer.peer.keeps_steps)
    assert "belong into the directory" in told
    if peer.peer.version >= "3":
        assert f"version        {peer.peer.version}" in told
    assert before == {experiment.name for experiment in client.list_experiments()}


def test_writing(peer: PeerServer, client: mlops.TrackingClient, capsys: pytest.CaptureFixture[str]) -> None:
    """What a request costs, and whether what was written is there."""
    assert main(["doctor", peer.uri, "--write"]) == 0
    told = capsys.readouterr().out
    count = "1 metric in" if peer.peer.dialect == "mlflow-preview" else "1,000 metrics in"
    assert count in told
    assert ("no tags" in told) == (not peer.peer.keeps_tags)
    experiment = client.get_experiment_by_name("mlops-doctor")
    assert experiment.name == "mlops-doctor"
