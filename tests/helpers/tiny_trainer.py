"""A Trainer that trains in a blink: a linear layer, sixteen random examples, no download."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainerCallback, TrainingArguments

if "keep_torch_compile" not in inspect.signature(accelerate.Accelerator.unwrap_model).parameters:
    pytest.skip("this accelerate (before 1.3) does not fit transformers: no Trainer trains", allow_module_level=True)

_RANDOM = torch.Generator().manual_seed(0)
DATA = [{"x": torch.randn(4, generator=_RANDOM), "labels": torch.tensor(number % 2)} for number in range(16)]
STEPS = 4


class TinyConfig(PretrainedConfig):
    model_type = "tiny"

    def __init__(self, size: int = 4, **options: Any) -> None:
        super().__init__(**options)
        self.size = size


class Tiny(PreTrainedModel):
    """Ten parameters. From step ``nan_from`` on its loss is NaN."""

    config_class = TinyConfig

    def __init__(self, config: TinyConfig | None = None, nan_from: int | None = None) -> None:
        super().__init__(config or TinyConfig())
        self.linear = torch.nn.Linear(4, 2)
        self.calls = 0
        self.nan_from = nan_from
        self.post_init()

    def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
        self.calls += 1
        scores = self.linear(x)
        loss = torch.nn.functional.cross_entropy(scores, labels)
        return {"loss": loss * float("nan") if self.calls == self.nan_from else loss, "logits": scores}


class Failing(TrainerCallback):
    """A user's callback that raises when a step begins."""

    def __init__(self, error: BaseException, after: int = 2, times: int = 1) -> None:
        self.error = error
        self.after = after
        self.times = times

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.after and self.times:
            self.times -= 1
            raise self.error


def arguments(root: Path, **options: Any) -> TrainingArguments:
    """Arguments for four steps, each logged."""
    chosen = {"max_steps": STEPS, "logging_steps": 1, "save_strategy": "no", "use_cpu": True, "report_to": "none"}
    chosen |= {"disable_tqdm": True, "eval_steps": 2, "per_device_train_batch_size": 4, "skip_memory_metrics": True}
    return TrainingArguments(str(root / "output"), **{**chosen, **options})


def trainer(root: Path, *callbacks: Any, model: Any = None, kind: type = Trainer, **options: Any) -> Any:
    """A Trainer with these callbacks and arguments."""
    given = {name: options.pop(name) for name in ("model_init", "compute_metrics") if name in options}
    model = Tiny() if model is None and "model_init" not in given else model
    return kind(
        model,
        arguments(root, **options),
        train_dataset=DATA,
        eval_dataset=DATA,
        callbacks=list(callbacks) or None,
        **given,
    )
