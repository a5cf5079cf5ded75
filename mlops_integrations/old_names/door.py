"""The earlier place of the run handle, for pickles."""

from mlops_integrations.framework_support.run_handle import RunHandle as Door

__all__ = ["Door"]
