"""Ten steps with a loop of one's own and Accelerate."""

import failing
import torch
from accelerate import Accelerator

trackers = []
if failing.WAY == "tracker":
    from mlops_integrations.accelerate import MLOpsTracker

    trackers = [MLOpsTracker()]
accelerator = Accelerator(log_with=trackers, cpu=True)
accelerator.init_trackers("endings", config={"lr": 0.01})
layer = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
layer, optimizer = accelerator.prepare(layer, optimizer)
for step in range(failing.STEPS):
    failing.fail(step)  # the fifth has been logged
    loss = layer(torch.ones(1, 4)).square().mean()
    accelerator.backward(loss)
    optimizer.step()
    accelerator.log({"loss": loss}, step=step)
accelerator.end_training()
print("trained")
