"""Hugging Face Trainer: ``Trainer(callbacks=[MLOpsCallback()])``, or ``report_to="mlops"`` once this is imported."""

from mlops_integrations.transformers._callback import MLOpsCallback

__all__ = ["MLOpsCallback"]

for _name in __all__:  # where users find them: in configurations, pickles and messages
    globals()[_name].__module__ = __name__
