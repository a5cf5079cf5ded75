"""Ten steps with the Hugging Face Trainer."""

import failing

if failing.WAY == "autolog":
    import mlops_integrations as mlops

    mlops.autolog(frameworks=["transformers"])

import torch
from transformers import Trainer, TrainingArguments


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.steps = 0

    def forward(self, x, labels=None):
        self.steps += 1
        failing.fail(self.steps - 1)  # the fifth has been logged
        return {"loss": self.layer(x).square().mean()}


callbacks = []
if failing.WAY == "callback":
    from mlops_integrations.transformers import MLOpsCallback

    callbacks = [MLOpsCallback()]
elif failing.WAY == "report_to":
    import mlops_integrations.transformers  # noqa: F401 - registers the name

arguments = TrainingArguments(
    output_dir="out",
    max_steps=failing.STEPS,
    per_device_train_batch_size=1,
    logging_steps=1,
    save_strategy="no",
    report_to="mlops" if failing.WAY == "report_to" else "none",
    use_cpu=True,
    disable_tqdm=True,
)
data = [{"x": torch.ones(4), "labels": torch.zeros(1)} for _ in range(failing.STEPS)]
trainer = Trainer(model=Model(), args=arguments, train_dataset=data, callbacks=callbacks)
trainer.train()
print("trained")
