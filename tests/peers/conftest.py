"""Old and new servers, one of each release, up for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlops_integrations as mlops
from peer_releases import PEERS
from peer_servers import PeerServer


@pytest.fixture(scope="session", params=PEERS)
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeerServer]:
    """A server of each release whose environment was made."""
    release = PEERS[request.param]
    if release.version not in os.environ.get("TEST_PEERS_WANTED", release.version).split():
        pytest.skip(f"MLflow {release.version} is not among the releases of this round")
    if not (release.home / "bin" / "python").exists():
        pytest.skip(f"there is no environment with MLflow {release.version}: see `nox -s peers`")
    running = PeerServer(release, tmp_path_factory.mktemp(release.version))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(peer: PeerServer) -> mlops.TrackingClient:
    """A client of the server."""
    return mlops.TrackingClient(peer.uri)


@pytest.fixture
def experiment(client: mlops.TrackingClient, tmp_path: Path) -> str:
    """An experiment of the test's own."""
    return client.create_experiment(tmp_path.name)
