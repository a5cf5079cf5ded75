"""Translates logs and arguments of a Trainer into metrics, parameters and keywords of ``start_run``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from mlops_integrations.recording.run import Run, recorder_of

_ABOUT_A_WHOLE: Final = re.compile(r"(^|_)(runtime|\w+_per_second|model_preparation_time|mem_[cg]pu_\w+)$")
"""Names of values about a whole training or evaluation: time, speed, memory."""

_TOLD_WHOLE: Final = frozenset({"id2label", "label2id"})
"""Mappings that are one parameter, as there may be thousands of labels."""

_NO_NEWS: Final = frozenset({"logging_dir"})
"""Parameters that differ whenever a training is started."""

_MAY_BE_NAN: Final = ("loss", "grad_norm", "train_loss")


def named(logs: Mapping[str, Any], prefixes: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield the logged values by the names that they are recorded by.

    Args:
        logs: the values by the Trainer's names: ``loss``, ``eval_loss``.
        prefixes: prefixes of the names of evaluations.
    """
    is_last = "train_runtime" in logs and "train_loss" in logs
    for key, value in logs.items():
        prefix = next((prefix for prefix in prefixes if key.startswith(f"{prefix}_")), None)
        if _ABOUT_A_WHOLE.search(key) or (is_last and key in {"train_loss", "total_flos"}):
            yield f"summary/{key}", value
        elif prefix is None:
            yield f"train/{key}", value
        else:
            yield f"{prefix}/{key[len(prefix) + 1 :]}", value


def nan_in(logs: Mapping[str, Any]) -> str | None:
    """Return the first name with a NaN, of those where a NaN means that the model is lost; None if there is none."""
    return next((key for key in _MAY_BE_NAN if logs.get(key, 0.0) != logs.get(key, 0.0)), None)


def params(args: Any, model: Any) -> dict[str, str]:
    """Return the Trainer's arguments by name, tokens masked; the model's configuration, size and adapters."""
    found = flat(args.to_dict())
    config = getattr(model, "config", None)
    if config is not None and hasattr(config, "to_dict"):
        found |= flat(config.to_dict(), "model/")
    if model is not None:
        sizes = [(getattr(weights, "ds_numel", None) or weights.numel(), weights) for weights in model.parameters()]
        found["model/num_parameters"] = str(sum(size for size, _ in sizes))
        found["model/num_trainable_parameters"] = str(sum(size for size, weights in sizes if weights.requires_grad))
    for adapter, peft in (getattr(model, "peft_config", None) or {}).items():
        found |= flat(peft.to_dict(), f"peft/{adapter}/")
    return found


def flat(values: Mapping[Any, Any], prefix: str = "") -> dict[str, str]:
    """Return parameters as texts, nested ones by names with ``/``."""
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value and key not in _TOLD_WHOLE:
            found |= flat(value, f"{prefix}{key}/")
        else:
            # The order of a set differs between processes.
            found[f"{prefix}{key}"] = str(sorted(value, key=str) if isinstance(value, (set, frozenset)) else value)
    return found


def news(known: Mapping[str, str], now: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the parameters that are not known, and a text that lists the known ones that have another value."""
    fresh = {key: value for key, value in now.items() if key not in known}
    changed = [
        f"{key}: {known[key]} -> {value}"
        for key, value in now.items()
        if known.get(key, value) != value
        and key not in _NO_NEWS
        and not (key.startswith("model/") and known[key] == "None")  # filled in by the model's use, or its saving
    ]
    return fresh, "; ".join(changed)


def options_beside(run: Run) -> dict[str, Any]:
    """Return keywords for another run in the same experiment, on the same server, in the same directory as this one."""
    spec, chosen = recorder_of(run).spec, recorder_of(run).settings
    by_name = spec.experiment_id is None
    return {
        "experiment_name": spec.experiment_name if by_name else None,
        "experiment_id": spec.experiment_id,
        "tracking_uri": chosen.tracking_uri,
        "directory": chosen.root,
        "mode": chosen.mode,
        "uploader": chosen.uploader,
    }
