"""Keras: ``model.fit(..., callbacks=[MLOpsCallback(experiment_name="digits")])``."""

from mlops_integrations.keras._callback import MLOpsCallback

__all__ = ["MLOpsCallback"]

for _name in __all__:  # where users find them: in configurations, pickles and messages
    globals()[_name].__module__ = __name__
