"""Records the checkpoints of a ``ModelCheckpoint`` as artifacts, with their scores; only reads its attributes.

Imports no framework. Checkpoints that are not local files or directories (``s3://…``) are ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlops_integrations.recording.run import Run

FOLDER: Final = "checkpoints"
_MOST_SCORES: Final = 20
"""This number of scores fits into a tag of any server."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint as it lies on disk: a file, or a directory of shards."""

    path: Path
    changed: int
    folder: str
    """Its directory among the run's artifacts."""

    @property
    def artifact(self) -> str:
        """Its path among the run's artifacts."""
        return f"{self.folder}/{self.path.name}"


class CheckpointRecorder:
    """The checkpoints of one run, each recorded once for every time it was written."""

    def __init__(self) -> None:
        self._savers: list[Any] = []
        """The ModelCheckpoints that have saved something: weak references, as Lightning gives them."""
        self._recorded: dict[Path, int] = {}
        """The checkpoints that are artifacts, and when each was written."""

    def saved(self, saver: Any) -> None:
        """Called when a ModelCheckpoint has saved."""
        if not any(known is saver for known in self._savers):
            self._savers.append(saver)

    def record(self, run: Run) -> None:
        """Record checkpoints that were not recorded yet, and set the tags that name the best and the latest one."""
        for number, saver in enumerate(self._savers, 1):
            folder = FOLDER if number == 1 else f"{FOLDER}-{number}"
            try:
                found = of(saver, folder)
            except ReferenceError:  # it was an earlier trainer's, which is gone
                continue
            fresh = [each for each in found if self._recorded.get(each.path) != each.changed]
            for checkpoint in fresh:
                self._recorded[checkpoint.path] = checkpoint.changed
                run.log_artifact(checkpoint.path, checkpoint.folder, wait=False)
            if fresh:
                run.set_tags(tags(saver, folder))

    def __getstate__(self) -> dict[str, Any]:
        return {"_savers": [], "_recorded": self._recorded}  # a copy of the trainer has savers of its own


def with_recorder(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a logger; an earlier version kept the recorder's own ones among them."""
    kept = dict(state)
    if "_checkpoints" not in kept:
        recorder = kept["_checkpoints"] = CheckpointRecorder()
        recorder._savers, recorder._recorded = kept.pop("_savers"), kept.pop("_recorded")
    return kept


def of(callback: Any, folder: str = FOLDER) -> list[Checkpoint]:
    """Return the checkpoints that a ModelCheckpoint has saved and not deleted since, oldest first."""
    found = {_place(path) for path in _paths(callback)}
    kept = [_checkpoint(path, callback, folder) for path in found if path is not None]
    return sorted((each for each in kept if each is not None), key=lambda each: (each.changed, str(each.path)))


def tags(callback: Any, folder: str = FOLDER) -> dict[str, str]:
    """Return the tags about the checkpoints: the best one, the latest one, and the scores.

    The scores are those of the best 20, best first, as a mapping of names to numbers in JSON.
    """
    kept = of(callback, folder)
    by_path: dict[Path | None, Checkpoint] = {each.path: each for each in kept}
    latest = by_path.get(_place(getattr(callback, "last_model_path", ""))) or (kept[-1] if kept else None)
    told = {"latest": None if latest is None else latest.artifact}
    monitor = getattr(callback, "monitor", None)
    if monitor is not None:
        best = by_path.get(_place(getattr(callback, "best_model_path", "")))
        mode = getattr(callback, "mode", "min")
        scores = {path: float(score) for path, score in (getattr(callback, "best_k_models", None) or {}).items()}
        ranked = sorted(scores, key=scores.__getitem__, reverse=mode == "max")[:_MOST_SCORES]
        told |= {
            "best": None if best is None else best.artifact,
            "monitor": f"{monitor} ({mode})",
            "scores": json.dumps({Path(path).name: scores[path] for path in ranked}),
        }
    return {f"mlops.{folder}.{name}": value for name, value in told.items() if value is not None}


def _paths(callback: Any) -> set[str]:
    named = (getattr(callback, name, "") for name in ("last_model_path", "best_model_path", "_last_checkpoint_saved"))
    return {str(path) for path in (*named, *(getattr(callback, "best_k_models", None) or {})) if path}


def _place(path: object) -> Path | None:
    """Return the real path of a checkpoint: ``last.ckpt`` may be a link to another one."""
    return Path(os.path.realpath(str(path))) if path else None


def _checkpoint(path: Path, callback: Any, folder: str) -> Checkpoint | None:
    try:
        changed = path.stat().st_mtime_ns
    except OSError:  # deleted, to make room for a better one
        return None
    home = _place(getattr(callback, "dirpath", None))
    if home is not None and path.is_relative_to(home):
        folder = "/".join((folder, *path.relative_to(home).parts[:-1]))
    return Checkpoint(path, changed, folder)
