"""The earlier place of ``Run``, for pickles."""

from mlops_integrations.recording.run import Run

__all__ = ["Run"]
