"""The errors we raise at construction, all under one root. Inside training nothing of ours is raised."""

from __future__ import annotations


class MLOpsError(Exception):
    """Root of every error of this package."""


class RunDirectoryError(MLOpsError, OSError):
    """A run directory that was asked for by name can't be made, found or written."""


class LeaseHeldError(MLOpsError):
    """Another uploader is at work in the run directory; the message says which."""
