"""The trackers that are compared, each reduced to: open, log some metrics at a step, close."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

Metrics = Mapping[str, float]


class Tracker(NamedTuple):
    """One that is ready: ``log(metrics, step)`` and ``close()``."""

    log: Callable[[Metrics, int], object]
    close: Callable[[], object]


def ours(uploader: str, mode: str = "online") -> Callable[[Path, str], Tracker]:
    """This package, with the server (``online``) or recording only (``offline``)."""

    def opened(directory: Path, uri: str) -> Tracker:
        import mlops_integrations as mlops

        run = mlops.start_run(
            tracking_uri=uri or None,
            directory=directory / "runs",
            uploader=uploader,
            mode=mode,
            experiment_name="bench",
        )
        return Tracker(run.log_metrics, lambda: run.finish(timeout=0.0))

    return opened


def mlflow(*, synchronous: bool) -> Callable[[Path, str], Tracker]:
    """MLflow's own client; its asynchronous mode batches in a thread."""

    def opened(_directory: Path, uri: str) -> Tracker:
        import mlflow as client

        client.set_tracking_uri(uri)
        client.set_experiment("bench")
        client.start_run()

        def close() -> None:
            if not synchronous:
                client.flush_async_logging()
            client.end_run()

        return Tracker(lambda metrics, step: client.log_metrics(metrics, step=step, synchronous=synchronous), close)

    return opened


def wandb(directory: Path, _uri: str) -> Tracker:
    """W&B, offline."""
    import wandb as client

    run = client.init(mode="offline", dir=directory, project="bench", settings=client.Settings(silent=True))
    return Tracker(lambda metrics, step: run.log(dict(metrics), step=step), run.finish)


def trackio(directory: Path, _uri: str) -> Tracker:
    """Trackio, local."""
    os.environ["TRACKIO_DIR"] = str(directory / "trackio")
    import trackio as client

    client.init(project="bench", embed=False)
    return Tracker(lambda metrics, step: client.log(dict(metrics), step=step), client.finish)


def dvclive(directory: Path, _uri: str) -> Tracker:
    """DVCLive, without Git and reports."""
    import dvclive as client

    live = client.Live(str(directory / "dvclive"), save_dvc_exp=False, report=None, dvcyaml=None)

    def log(metrics: Metrics, step: int) -> None:
        live.step = step
        for key, value in metrics.items():
            live.log_metric(key, value)

    return Tracker(log, live.end)


def tensorboard(directory: Path, _uri: str) -> Tracker:
    """TensorBoard's SummaryWriter, as torch brings it."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(directory / "tensorboard"))

    def log(metrics: Metrics, step: int) -> None:
        for key, value in metrics.items():
            writer.add_scalar(key, value, step)

    return Tracker(log, writer.close)


def csv_logger(directory: Path, _uri: str) -> Tracker:
    """Lightning's CSVLogger: in memory, written every 100 steps."""
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(str(directory), name="csv")

    def log(metrics: Metrics, step: int) -> None:
        logger.log_metrics(dict(metrics), step)
        if step % 100 == 99:
            logger.save()

    return Tracker(log, lambda: logger.finalize("success"))


def swanlab(directory: Path, _uri: str) -> Tracker:
    """SwanLab, offline."""
    import swanlab as client

    client.init(project="bench", mode="offline", logdir=str(directory / "swanlab"))
    return Tracker(lambda metrics, step: client.log(dict(metrics), step=step), client.finish)


def comet(directory: Path, _uri: str) -> Tracker:
    """Comet, offline."""
    import comet_ml as client

    experiment = client.OfflineExperiment(
        project_name="bench",
        workspace="bench",
        offline_directory=str(directory / "comet"),
        log_env_details=False,
        log_git_metadata=False,
        log_code=False,
        display_summary_level=0,
    )
    return Tracker(lambda metrics, step: experiment.log_metrics(dict(metrics), step=step), experiment.end)


TRACKERS: Final[dict[str, Callable[[Path, str], Tracker]]] = {
    "here": ours("process"),
    "here, thread": ours("thread"),
    "here, no server": ours("process", "offline"),
    "MLflow, synchronous": mlflow(synchronous=True),
    "MLflow, asynchronous": mlflow(synchronous=False),
    "Trackio": trackio,
    "W&B offline": wandb,
    "DVCLive": dvclive,
    "TensorBoard SummaryWriter": tensorboard,
    "Lightning CSVLogger": csv_logger,
    "SwanLab offline": swanlab,
    "Comet offline": comet,
}


def some_metrics(keys: int) -> dict[str, float]:
    """As many values as a training logs at a step."""
    return {f"train/metric_{number}": 0.1 + number / 7 for number in range(keys)}


@contextlib.contextmanager
def quietly() -> Any:
    """What a tracker prints goes to stderr, so that stdout keeps the figures."""
    import sys

    with contextlib.redirect_stdout(sys.stderr):
        yield
