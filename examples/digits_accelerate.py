"""Handwritten digits with a loop of one's own and Accelerate, recorded.

    pip install ".[accelerate]" scikit-learn
    python examples/digits_accelerate.py

Without MLFLOW_TRACKING_URI the run is recorded in ./mlops_runs; with it, it goes to that server too.
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

from mlops_integrations.accelerate import MLOpsTracker

EPOCHS = 10


def main():
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    images = torch.from_numpy(images.astype("float32") / 16)
    labels = torch.from_numpy(labels)
    x_train, x_test, y_train, y_test = train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=0)

    tracker = MLOpsTracker(experiment_name="digits", run_name="accelerate")
    accelerator = Accelerator(log_with=tracker, cpu=True)
    accelerator.init_trackers("digits", config={"learning_rate": 0.005, "batch_size": 32})

    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    loader = DataLoader(TensorDataset(x_train, y_train), 32, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    for epoch in range(EPOCHS):
        for batch, target in loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(model(batch), target)
            accelerator.backward(loss)
            optimizer.step()
        with torch.no_grad():
            accuracy = (model(x_test).argmax(dim=1) == y_test).float().mean()
        accelerator.log({"train/loss": loss, "test/accuracy": accuracy}, step=epoch)
    accelerator.end_training()

    print(f"test accuracy: {accuracy:.3f}")
    print(f"run directory: {tracker.run.directory}")


if __name__ == "__main__":
    main()
