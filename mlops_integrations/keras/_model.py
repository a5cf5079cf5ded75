"""Parameters and a summary of a training, from a Keras model and the arguments of its ``fit``.

Only reads these; imports nothing of Keras.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_ARGUMENTS: Final = (
    "initial_epoch",
    "shuffle",
    "validation_split",
    "validation_freq",
    "validation_steps",
    "validation_batch_size",
    "class_weight",
)
"""Arguments of ``fit`` that are recorded if they are given."""


def of_fit(arguments: Mapping[str, Any]) -> dict[str, object]:
    """Return the parameters among the arguments of ``fit`` that are plain values."""
    params = {name: arguments.get(name) for name in ("batch_size", *_ARGUMENTS)}
    if params["batch_size"] is None:
        params["batch_size"] = _batch_size(arguments.get("x"))
    return {name: value for name, value in params.items() if isinstance(value, (bool, int, float, str, dict))}


def _batch_size(x: Any) -> int | None:
    """Return the batch size: the data's own ``batch_size``, if it has one; for arrays, Keras' default."""
    own = getattr(x, "batch_size", None)
    if isinstance(own, int):
        return own
    while isinstance(x, (list, tuple, Mapping)) and x:
        x = next(iter(x.values() if isinstance(x, Mapping) else x))
    return 32 if hasattr(x, "shape") else None


def of_model(model: Any, rate: float | None) -> dict[str, object]:
    """Return the parameters of ``compile``: the optimizer's, the loss, the metrics.

    Args:
        model: a compiled model.
        rate: its learning rate, as it is to be recorded.
    """
    optimizer = model.optimizer
    config = {} if optimizer is None else {**optimizer.get_config(), "name": type(optimizer).__name__}
    if rate is not None and isinstance(config.get("learning_rate"), float):
        config["learning_rate"] = rate
    # The public API returns the arguments of ``compile`` only as serialized objects.
    compiled = getattr(getattr(model, "_compile_config", None), "config", {})
    params = {"loss": _name(model.loss), "steps_per_execution": getattr(model, "steps_per_execution", None)}
    params |= {name: _name(compiled.get(name)) for name in ("metrics", "weighted_metrics", "loss_weights")}
    return params | {f"optimizer/{key}": value for key, value in config.items()}


def _name(given: Any) -> Any:
    """Return the name of a loss or a metric, in whatever form it is given."""
    if isinstance(given, Mapping):
        return {key: _name(value) for key, value in given.items()}
    if isinstance(given, (list, tuple)):
        return [_name(value) for value in given]
    if given is None or isinstance(given, (str, bool, int, float)):
        return given
    return getattr(given, "__name__", type(given).__name__)


def summary(model: Any) -> str:
    """Return the table that Keras prints for a built model."""
    lines: list[str] = []
    model.summary(print_fn=lambda line, **_: lines.append(line))
    return "\n".join(lines) + "\n"
