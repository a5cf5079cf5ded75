"""Ten steps with Lightning."""

import failing

if failing.WAY == "autolog":
    import mlops_integrations as mlops

    mlops.autolog(frameworks=["lightning"])

import lightning
import torch


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)
        self.steps = 0

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0]).square().mean()
        self.log("loss", loss)
        return loss

    def on_train_batch_start(self, batch, batch_idx):
        self.steps += 1
        failing.fail(self.steps - 1)  # the fifth has been logged

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


logger, callbacks = False, []
if failing.WAY == "logger":
    from mlops_integrations.lightning import MLOpsLogger

    logger = MLOpsLogger()
elif failing.WAY == "callback":
    from mlops_integrations.lightning import MLOpsCallback

    callbacks = [MLOpsCallback()]
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(failing.STEPS, 4)), batch_size=1)
trainer = lightning.Trainer(
    max_epochs=1,
    accelerator="cpu",
    logger=logger,
    callbacks=callbacks,
    log_every_n_steps=1,
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
    default_root_dir=".",
)
trainer.fit(Module(), data)
print("trained")
