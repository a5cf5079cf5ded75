"""Real trainings with Keras, read back from the journal and compared with what Keras itself says."""

from __future__ import annotations

import pickle
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlops_integrations as mlops

pytest.importorskip("jax")
keras = pytest.importorskip("keras")
from sklearn.datasets import load_digits  # noqa: E402

from mlops_integrations.keras import MLOpsCallback  # noqa: E402

IMAGES, LABELS = load_digits(return_X_y=True)
TRAINING = IMAGES[:256].astype("float32") / 16, LABELS[:256]
VALIDATION = IMAGES[256:384].astype("float32") / 16, LABELS[256:384]
TEST = IMAGES[384:512].astype("float32") / 16, LABELS[384:512]
BATCHES = 8

Read = Callable[[Path], Any]
Options = Mapping[str, str]


def classifier(**compiled: Any) -> Any:
    """A small network."""
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10, activation="softmax")])
    settings = {"optimizer": "adam", "loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]}
    model.compile(**{**settings, **compiled})
    return model


def fit(model: Any, *callbacks: Any, epochs: int = 3, **options: Any) -> Any:
    """Train on real images; what Keras itself keeps of it."""
    return model.fit(*TRAINING, batch_size=32, epochs=epochs, verbose=0, callbacks=list(callbacks), **options).history


class Failing(keras.callbacks.Callback):
    """A user's callback that raises at the end of an epoch."""

    def __init__(self, error: BaseException, epoch: int = 1) -> None:
        super().__init__()
        self.error = error
        self.epoch = epoch

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        if epoch == self.epoch:
            raise self.error


def test_every_epoch_is_recorded_as_keras_keeps_it(recorded: Read, local: Options) -> None:
    """Each metric of Keras' History is in the journal with the epochs as steps, and so is the learning rate."""
    callback = MLOpsCallback(**local)
    history = fit(classifier(), callback, validation_data=VALIDATION)
    run = recorded(callback.run.directory)
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} == set(history)
    assert {*history, "learning_rate"} == run.keys
    for key, values in history.items():
        assert list(enumerate(values)) == run.curve(key)
    assert [0, 1, 2] == [step for step, _ in run.curve("learning_rate")]
    assert {} == run.losses


def test_parameters_tell_how_it_was_trained(recorded: Read, local: Options) -> None:
    """The fit, the optimizer and the loss become parameters, beside those that the user gives."""
    callback = MLOpsCallback(params={"seed": 7}, tags={"team": "vision"}, **local)
    fit(classifier(optimizer=keras.optimizers.SGD(0.002, momentum=0.5)), callback, shuffle=False)
    run = recorded(callback.run.directory)
    expected = {
        "seed": "7",
        "epochs": "3",
        "steps_per_epoch": "8",
        "batch_size": "32",
        "shuffle": "False",
        "loss": "sparse_categorical_crossentropy",
        "metrics": "['accuracy']",
        "steps_per_execution": "1",
        "optimizer/name": "SGD",
        "optimizer/learning_rate": "0.002",
        "optimizer/momentum": "0.5",
    }
    assert expected == {key: run.params.get(key) for key in expected}
    assert "vision" == run.tags["team"]
    assert {} == run.losses


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (keras.losses.SparseCategoricalCrossentropy(), "SparseCategoricalCrossentropy"),
        (lambda labels, scores: keras.ops.mean(scores, axis=-1), "<lambda>"),
        (["sparse_categorical_crossentropy"], "['sparse_categorical_crossentropy']"),
    ],
)
def test_a_loss_of_any_kind_has_a_name(recorded: Read, local: Options, loss: Any, expected: str) -> None:
    """A loss given as an object, a function or a list is a readable parameter."""
    callback = MLOpsCallback(**local)
    fit(classifier(loss=loss, metrics=None), callback, epochs=1)
    run = recorded(callback.run.directory)
    assert expected == run.params["loss"]
    assert {} == run.losses


def test_the_learning_rate_is_the_scheduled_one(recorded: Read, local: Options) -> None:
    """With a callback that changes the learning rate, and with a schedule, the rate in use is recorded."""
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.5 ** (epoch + 1))
    with_scheduler, with_schedule = MLOpsCallback(**local), MLOpsCallback(**local)
    fit(classifier(), with_scheduler, scheduler)
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([BATCHES], [0.5, 0.25])
    fit(classifier(optimizer=keras.optimizers.SGD(schedule)), with_schedule, epochs=3)
    assert [(0, 0.5), (1, 0.25), (2, 0.125)] == recorded(with_scheduler.run.directory).curve("learning_rate")
    # A schedule counts the updates done: 8, 16 and 24 at the ends of the epochs, and its border belongs to the first.
    assert [(0, 0.5), (1, 0.25), (2, 0.25)] == recorded(with_schedule.run.directory).curve("learning_rate")


class Batches(keras.callbacks.Callback):
    """What Keras tells at the end of each batch, and in which threads."""

    async_safe = True

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, float]] = []
        self.threads: set[str] = set()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.told.append((batch, (logs or {})["loss"]))
        self.threads.add(threading.current_thread().name)


def test_every_batch_is_recorded_on_request(recorded: Read, local: Options) -> None:
    """Batches are counted on over the epochs and over a second fit, whatever the order of Keras' threads."""
    callback, witness = MLOpsCallback(log_every_batch=True, **local), Batches()
    model = classifier()
    fit(model, callback, witness, epochs=2)
    fit(model, callback, witness, epochs=1)
    run = recorded(callback.run.directory)
    curve = sorted(run.curve("batch/loss"))
    assert list(range(3 * BATCHES)) == [step for step, _ in curve]
    assert sorted(witness.told) == sorted((step % BATCHES, value) for step, value in curve)
    assert list(range(3 * BATCHES)) == sorted(step for step, _ in run.curve("batch/accuracy"))


def test_batches_stay_asynchronous(local: Options) -> None:
    """With our callback in the list, Keras still tells of batches in threads of their own."""
    if not hasattr(keras.callbacks.CallbackList, "_async_dispatch"):
        pytest.skip("this Keras tells of batches in the thread that trains")
    witness = Batches()
    fit(classifier(), MLOpsCallback(log_every_batch=True, **local), witness)
    assert threading.current_thread().name not in witness.threads


def test_no_batch_is_recorded_unasked(recorded: Read, local: Options) -> None:
    """By default the journal holds epochs only."""
    callback = MLOpsCallback(**local)
    fit(classifier(), callback)
    assert {"loss", "accuracy", "learning_rate"} == recorded(callback.run.directory).keys


def test_a_normal_end_is_finished(recorded: Read, local: Options) -> None:
    """When fit returns, the run is FINISHED in its journal, without waiting for the process to exit."""
    callback = MLOpsCallback(**local)
    fit(classifier(), callback)
    run = recorded(callback.run.directory)
    assert ("FINISHED", None) == (run.ending.status, run.ending.reason)
    assert 1 == run.journals


def test_evaluate_belongs_to_the_run(recorded: Read, local: Options) -> None:
    """An evaluation after fit is recorded as test_..., at the last epoch, and ends the run again."""
    callback, model = MLOpsCallback(**local), classifier()
    fit(model, callback, validation_data=VALIDATION)
    tested = model.evaluate(*TEST, verbose=0, callbacks=[callback], return_dict=True)
    run = recorded(callback.run.directory)
    assert {f"test_{key}": [(2, value)] for key, value in tested.items()} == {
        key: run.curve(key) for key in run.keys if key.startswith("test_")
    }
    assert "FINISHED" == run.ending.status


def test_evaluate_alone_is_a_run(recorded: Read, local: Options) -> None:
    """A callback given to evaluate only records it, and ends the run."""
    callback = MLOpsCallback(**local)
    tested = classifier().evaluate(*TEST, verbose=0, callbacks=[callback], return_dict=True)
    run = recorded(callback.run.directory)
    assert [(0, tested["loss"])] == run.curve("test_loss")
    assert "FINISHED" == run.ending.status


class Evaluating(keras.callbacks.Callback):
    """A user's callback that evaluates on other data after each epoch's last batch, through our callback."""

    def __init__(self, callback: Any) -> None:
        super().__init__()
        self.callback = callback

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if batch == BATCHES - 1:
            self.model.evaluate(*TEST, verbose=0, callbacks=[self.callback])


def test_evaluate_inside_fit_is_kept_apart_from_validation(recorded: Read, local: Options) -> None:
    """An evaluation by a user's callback inside fit is test_..., fit's own validation stays val_..."""
    callback, model = MLOpsCallback(**local), classifier()
    history = fit(model, callback, Evaluating(callback), epochs=2, validation_data=VALIDATION)
    run = recorded(callback.run.directory)
    assert 2 == len(run.curve("test_loss"))
    assert 1 == run.journals
    assert list(enumerate(history["val_loss"])) == run.curve("val_loss")
    assert "FINISHED" == run.ending.status


def test_predict_records_nothing(recorded: Read, local: Options) -> None:
    """A callback given to predict after fit adds nothing."""
    callback, model = MLOpsCallback(**local), classifier()
    fit(model, callback)
    before = recorded(callback.run.directory)
    model.predict(TEST[0], verbose=0, callbacks=[callback])
    assert before == recorded(callback.run.directory)


def test_fit_twice_is_one_run_whose_steps_go_on(recorded: Read, local: Options) -> None:
    """A second fit with the same callback continues the curves."""
    callback, model = MLOpsCallback(**local), classifier()
    losses = fit(model, callback, epochs=2)["loss"] + fit(model, callback, epochs=3)["loss"]
    run = recorded(callback.run.directory)
    assert list(enumerate(losses)) == run.curve("loss")
    assert "FINISHED" == run.ending.status
    assert {} == run.losses


def test_initial_epoch_is_the_step(recorded: Read, local: Options) -> None:
    """A fit that begins at a later epoch is recorded at that epoch."""
    callback = MLOpsCallback(**local)
    fit(classifier(), callback, epochs=7, initial_epoch=5)
    assert [5, 6] == [step for step, _ in recorded(callback.run.directory).curve("loss")]


def test_an_interrupted_fit_goes_on(recorded: Read, local: Options) -> None:
    """After Ctrl-C that the user catches, a second fit continues the same run, which ends FINISHED."""
    callback, model = MLOpsCallback(**local), classifier()
    with pytest.raises(KeyboardInterrupt):
        fit(model, callback, Failing(KeyboardInterrupt(), epoch=2))
    assert recorded(callback.run.directory).ending is None
    fit(model, callback, epochs=2)
    run = recorded(callback.run.directory)
    assert [0, 1, 2, 3] == [step for step, _ in run.curve("loss")]
    assert "FINISHED" == run.ending.status
    assert 1 == run.journals


def test_evaluate_after_a_caught_interrupt_ends_the_run(recorded: Read, local: Options) -> None:
    """Ctrl-C that stops fit early and is caught is not the end: the evaluation that follows is recorded and ends it."""
    callback, model = MLOpsCallback(**local), classifier()
    with pytest.raises(KeyboardInterrupt):
        fit(model, callback, Failing(KeyboardInterrupt()), validation_data=VALIDATION)
    model.evaluate(*TEST, verbose=0, callbacks=[callback])
    run = recorded(callback.run.directory)
    assert [0] == [step for step, _ in run.curve("test_loss")]
    assert "FINISHED" == run.ending.status


def test_a_given_run_stays_open(recorded: Read, local: Options) -> None:
    """A run given as run= takes the records, and is ended by its owner."""
    with mlops.start_run(**local) as run:
        callback = MLOpsCallback(run=run)
        history = fit(classifier(), callback)
        assert callback.run is run
        assert run.is_open
    read = recorded(run.directory)
    assert list(enumerate(history["loss"])) == read.curve("loss")
    assert "FINISHED" == read.ending.status


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("no such digit"), "FAILED", "ValueError: no such digit"),
        (KeyboardInterrupt(), "KILLED", "SIGINT"),
        (SystemExit(3), "FAILED", "exit code 3"),
    ],
)
def test_the_with_block_tells_what_left_fit(
    recorded: Read, local: Options, error: BaseException, status: str, reason: str
) -> None:
    """An exception that leaves fit leaves the run's block too, and becomes its status."""
    with pytest.raises(type(error)), mlops.start_run(**local) as run:
        fit(classifier(), MLOpsCallback(run=run), Failing(error))
    read = recorded(run.directory)
    assert (status, reason) == (read.ending.status, read.ending.reason)
    assert [0] == [step for step, _ in read.curve("loss")]


SCRIPT = """
import os
os.environ['KERAS_BACKEND'] = 'jax'
import sys
import keras, numpy as np
from mlops_integrations.keras import MLOpsCallback

class Ending(keras.callbacks.Callback):
    fits = 0
    def on_train_begin(self, logs=None):
        self.fits += 1
    def on_epoch_begin(self, epoch, logs=None):
        if (self.fits, epoch) == {when}:
            {how}

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(loss='mse')
data = np.ones((8, 2), 'float32'), np.ones((8, 1), 'float32')
callbacks = [Ending()]
if sys.argv[1] == 'recorded':
    callbacks.append(MLOpsCallback(mode='offline', uploader='thread'))
for _ in range({fits}):
    model.fit(*data, epochs=3, verbose=0, callbacks=callbacks)
"""

Train = Callable[..., subprocess.CompletedProcess[str]]

EXCEPTION = "raise ValueError('no such digit')"
INTERRUPT = "import signal; os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [
        (EXCEPTION, "FAILED", "ValueError: no such digit"),
        (INTERRUPT, "KILLED", "SIGINT"),
        ("sys.exit(3)", "FAILED", "exit code 3"),
    ],
)
def test_the_exit_tells_what_keras_does_not(
    recorded: Read, train: Train, root: Path, how: str, status: str, reason: str
) -> None:
    """Without a with block, what left fit is in the journal at exit; code and traceback are as without us."""
    script = SCRIPT.format(when=(1, 1), how=how, fits=1)
    ours, plain = train(script, "recorded"), train(script, "plain")
    read = recorded((root / "latest").resolve())
    assert (status, reason) == (read.ending.status, read.ending.reason)
    assert [0] == [step for step, _ in read.curve("loss")]
    assert plain.returncode == ours.returncode
    assert ours.returncode != 0
    assert plain.stderr.splitlines() == [line for line in ours.stderr.splitlines() if not line.startswith("mlops:")]


def test_a_second_fit_that_fails_at_once_makes_the_run_failed(recorded: Read, train: Train, root: Path) -> None:
    """A run that a first fit has ended is not left FINISHED when the second one raises before its first epoch."""
    train(SCRIPT.format(when=(2, 0), how=EXCEPTION, fits=2), "recorded")
    read = recorded((root / "latest").resolve())
    assert ("FAILED", "ValueError: no such digit") == (read.ending.status, read.ending.reason)


def test_a_directory_that_is_deleted_does_not_stop_the_training(local: Options, root: Path) -> None:
    """With the run directory gone in the middle, fit goes on to its end, and so does a second one."""

    class Deleting(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 1:
                shutil.rmtree(root)

    callback, model = MLOpsCallback(**local), classifier()
    assert 3 == len(fit(model, callback, Deleting())["loss"])
    assert 1 == len(fit(model, callback, epochs=1)["loss"])


def test_a_full_disk_does_not_stop_the_training(train: Train) -> None:
    """With every write refused, fit goes on to its end, and what is lost is said."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))"
    ignored = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    script = SCRIPT.format(when=(1, 1), how=f"{ignored}; {limited}", fits=9) + "print('all fits done')\n"
    done = train(script, "recorded")
    assert "all fits done" in done.stdout
    assert 0 == done.returncode
    assert "mlops: not kept: disk:" in done.stderr


@pytest.mark.swallows
def test_a_failure_of_ours_does_not_stop_the_training(recorded: Read, local: Options) -> None:
    """What we can't describe is counted, and everything else of the training is recorded."""

    class Indescribable(keras.optimizers.SGD):
        def get_config(self) -> dict[str, Any]:
            raise NotImplementedError("no config")

    callback = MLOpsCallback(**local)
    history = fit(classifier(optimizer=Indescribable(0.25)), callback)
    run = recorded(callback.run.directory)
    assert list(enumerate(history["loss"])) == run.curve("loss")
    assert {"internal error": 1} == run.losses
    assert "FINISHED" == run.ending.status


def test_run_and_keywords_together_are_an_error(local: Options) -> None:
    """An open run and keywords for another one contradict each other."""
    with mlops.start_run(**local) as run, pytest.raises(ValueError, match="not both"):
        MLOpsCallback(run=run, experiment_name="digits")


def test_a_mode_that_makes_no_sense_is_an_error() -> None:
    """A misspelled keyword value raises where it is written, not in the training."""
    with pytest.raises(ValueError, match="offlien"):
        MLOpsCallback(mode="offlien")


def test_making_a_callback_makes_no_run(root: Path, local: Options) -> None:
    """Nothing is on disk before the training begins."""
    MLOpsCallback(**local)
    assert not root.exists()


def test_it_can_be_pickled(recorded: Read, local: Options) -> None:
    """A callback that went through pickle records; one with an open run goes on in that run."""
    fresh = pickle.loads(pickle.dumps(MLOpsCallback(**local)))
    history = fit(classifier(), fresh)
    again = pickle.loads(pickle.dumps(fresh))
    more = fit(classifier(), again, epochs=1)
    read = recorded(fresh.run.directory)
    assert fresh.run.uid == again.run.uid
    assert list(enumerate(history["loss"] + more["loss"])) == read.curve("loss")


def test_without_keras_the_extra_is_named(train: Train) -> None:
    """Where Keras is missing, importing the integration says in one line what to install."""
    done = train("import sys; sys.modules['keras'] = None; import mlops_integrations.keras")
    assert "ImportError: Keras is not installed: pip install keras" in done.stderr
    assert 1 == done.stderr.count("Traceback")


def test_disabled_records_nothing(root: Path) -> None:
    """With mode="disabled" the training goes on and nothing is written."""
    history = fit(classifier(), MLOpsCallback(mode="disabled"))
    assert 3 == len(history["loss"])
    assert not root.exists()


def test_nan_is_kept(recorded: Read, local: Options) -> None:
    """A loss that is no number any more is in the journal as such."""
    callback, model = MLOpsCallback(**local), classifier()
    broken = np.full_like(TRAINING[0], np.nan)
    model.fit(broken, TRAINING[1], epochs=1, verbose=0, callbacks=[callback])
    assert [(0, "NaN")] == recorded(callback.run.directory).curve("loss")
