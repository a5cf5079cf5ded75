"""The earlier place of the settings, for pickles."""

from mlops_integrations.config.settings import Settings

__all__ = ["Settings"]
