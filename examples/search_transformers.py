"""Two trials of a search for a learning rate with the Trainer of Hugging Face Transformers: a run, and a child of each.

    pip install ".[transformers]" optuna scikit-learn
    python examples/search_transformers.py

Without MLFLOW_TRACKING_URI the runs are recorded in ./mlops_runs; with it, they go to that server too.
"""

import torch
from digits_transformers import accuracy, digits, small_transformer
from transformers import Trainer, TrainingArguments

from mlops_integrations.transformers import MLOpsCallback


def space(trial):
    return {"learning_rate": trial.suggest_float("learning_rate", 0.0005, 0.01, log=True)}


if __name__ == "__main__":
    torch.set_num_threads(1)  # the matrices are small
    train, validation, _ = digits()
    callback = MLOpsCallback(experiment_name="digits", run_name="search")
    arguments = TrainingArguments(
        "search_transformers_output",
        num_train_epochs=3,
        per_device_train_batch_size=32,
        eval_strategy="epoch",
        save_strategy="no",
        logging_steps=5,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        None,
        arguments,
        model_init=small_transformer,
        train_dataset=train,
        eval_dataset=validation,
        compute_metrics=accuracy,
        callbacks=[callback],
    )
    best = trainer.hyperparameter_search(
        hp_space=space,
        compute_objective=lambda metrics: metrics["eval_accuracy"],
        n_trials=2,
        direction="maximize",
        backend="optuna",
    )
    print(f"best trial: {best.run_id}")
    print(f"its accuracy: {best.objective:.3f}")
    print(f"run directory: {callback.run.directory}")
