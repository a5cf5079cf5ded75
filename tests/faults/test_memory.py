"""Memory stays flat however much is logged while nobody takes it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from real_mlflow import eventually, free_port
from trainer import Trainer, side_processes

POINTS = 10_000_000 if os.environ.get("FAULT_SEEDS") else 1_000_000
TRAINER_MB, UPLOADER_MB = 10.0, 60.0

LOGS = """
import sys, time
import mlops_integrations as mlops

def used():
    for line in open('/proc/self/status'):
        if line.startswith('VmRSS'):
            return int(line.split()[1])

run = mlops.start_run(experiment_name='memory')
def log(first, last):
    for step in range(first, last):
        run.log_metrics({'loss': step / 7, 'accuracy': 1 / (step + 1), 'c': 0.5, 'd': 1.5, 'e': 2.5}, step=step)
log(0, 20_000)
before = used()
log(20_000, 20_000 + int(sys.argv[1]) // 5)
run.log_metric('loss', 0.0)
print(used() - before, flush=True)
sys.stdin.readline()
"""


def test_memory_is_flat_while_the_server_is_down(trainer: Trainer) -> None:
    """However many points: the training process needs a few megabytes more at most, the uploader some dozens in all."""
    script = LOGS.replace("sys.argv[1]", str(POINTS))
    process = trainer.start(
        script, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{free_port()}", MLOPS_LINGER="0", MLOPS_FINISH_TIMEOUT="0"
    )
    assert process.stdout is not None
    grown = int(process.stdout.readline()) / 1024
    (pid,) = eventually(lambda: side_processes(trainer.directory))
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    _, err = process.communicate("\n", timeout=200)

    print(f"{POINTS:,} points: the trainer grew by {grown:.1f} MB, the uploader's peak was {int(peak) / 1024:.1f} MB")
    assert "not kept" not in err
    assert grown < TRAINER_MB
    assert int(peak) / 1024 < UPLOADER_MB
    eventually(lambda: not side_processes(trainer.directory))
