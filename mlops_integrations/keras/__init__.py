"""Keras: ``model.fit(..., callbacks=[MLOpsCallback(experiment_name="digits")])``."""

try:
    import keras as _keras  # noqa: F401 - before ours are imported, so that a missing one is told
except ModuleNotFoundError as error:
    if error.name != "keras":  # Keras is installed, and its own error says what is missing
        raise
    raise ImportError("Keras is not installed: pip install keras") from None

from mlops_integrations.keras._callback import MLOpsCallback

__all__ = ["MLOpsCallback"]

for _name in __all__:  # where users find them: in configurations, pickles and messages
    globals()[_name].__module__ = __name__
