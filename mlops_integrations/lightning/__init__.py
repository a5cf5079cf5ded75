"""Lightning: ``Trainer(logger=MLOpsLogger(experiment_name="digits"), callbacks=[MLOpsCallback()])``."""

from mlops_integrations.lightning._callback import MLOpsCallback
from mlops_integrations.lightning._logger import MLOpsLogger

__all__ = ["MLOpsCallback", "MLOpsLogger"]

for _name in __all__:  # where users find them: in configurations, pickles and messages
    globals()[_name].__module__ = __name__
