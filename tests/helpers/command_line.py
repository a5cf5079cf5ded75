"""The command line as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def module(*arguments: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
    """``python -m mlops_integrations`` as a process, which can import what this one can."""
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    return subprocess.Popen(
        [sys.executable, "-m", "mlops_integrations", *arguments],
        cwd=cwd,
        env=environment | options.pop("environment", {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
