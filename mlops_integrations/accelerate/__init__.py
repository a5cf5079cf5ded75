"""Accelerate: ``Accelerator(log_with=MLOpsTracker(experiment_name="digits"))``."""

from mlops_integrations.accelerate._tracker import MLOpsTracker

__all__ = ["MLOpsTracker"]

for _name in __all__:  # where users find them: in configurations, pickles and messages
    globals()[_name].__module__ = __name__
