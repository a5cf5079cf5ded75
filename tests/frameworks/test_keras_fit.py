"""What is seen around Keras' ``fit`` and ``evaluate``: what leaves them, what they were given; and every backend."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlops_integrations as mlops

pytest.importorskip("jax")
keras = pytest.importorskip("keras")

from mlops_integrations.keras import MLOpsCallback  # noqa: E402

IMAGES, TARGETS = np.ones((36, 4), "float32"), np.ones((36, 1), "float32")
BATCHES = 9

Read = Callable[[Path], Any]
Options = Mapping[str, str]
Train = Callable[..., subprocess.CompletedProcess[str]]


def network(**compiled: Any) -> Any:
    """The smallest network."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return model


class Failing(keras.callbacks.Callback):
    """A user's callback that raises in one of Keras' hooks."""

    def __init__(self, hook: str, error: BaseException | None = None) -> None:
        super().__init__()
        setattr(self, hook, self.fail)
        self.error = error or ValueError("no such digit")

    def fail(self, *_: object, **__: object) -> None:
        raise self.error


def ended(run: Any) -> tuple[str, str | None] | None:
    """Status and reason, if the run has ended."""
    return None if run.ending is None else (run.ending.status, run.ending.reason)


FAILED = ("FAILED", "ValueError: no such digit")


@pytest.mark.parametrize("hook", ["on_train_begin", "on_train_batch_begin", "on_test_begin", "on_train_end"])
def test_an_exception_that_leaves_fit_is_the_status(recorded: Read, local: Options, hook: str) -> None:
    """Wherever in fit it was raised, also in the validation, the run is FAILED as soon as fit is left."""
    callback, data = MLOpsCallback(**local), (IMAGES, TARGETS)
    with pytest.raises(ValueError, match="no such digit"):
        network().fit(*data, verbose=0, callbacks=[callback, Failing(hook)], validation_data=data)
    assert FAILED == ended(recorded(callback.run.directory))
    assert mlops.active_run() is None


def test_a_later_fit_without_the_callback_is_not_its_own(recorded: Read, local: Options) -> None:
    """When the same model is trained on without our callback and that fails, the run stays as it ended."""
    callback, model = MLOpsCallback(**local), network()
    model.fit(IMAGES, TARGETS, verbose=0, callbacks=[callback])
    with pytest.raises(ValueError):
        model.fit(IMAGES, TARGETS, verbose=0, callbacks=[Failing("on_epoch_begin")])
    assert ("FINISHED", None) == ended(recorded(callback.run.directory))


def test_what_keras_refuses_is_a_failed_run(recorded: Read, local: Options) -> None:
    """A fit that raises before it tells its callbacks of a beginning is recorded all the same."""
    callback = MLOpsCallback(**local)
    with pytest.raises(ValueError, match=r"[Ss]ame|size"):
        network().fit(IMAGES, TARGETS[:-1], verbose=0, callbacks=[callback])
    status, reason = ended(recorded(callback.run.directory))
    assert "FAILED" == status
    assert reason.startswith("ValueError: ")


def test_a_second_fit_that_keras_refuses_makes_the_run_failed(recorded: Read, local: Options) -> None:
    """A run that a first fit has ended is not left FINISHED."""
    callback, model = MLOpsCallback(**local), network()
    model.fit(IMAGES, TARGETS, verbose=0, callbacks=[callback])
    with pytest.raises(ValueError):
        model.fit(IMAGES, TARGETS[:-1], verbose=0, callbacks=[callback])
    assert "FAILED" == recorded(callback.run.directory).ending.status


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["interrupt", "exit"])
def test_an_interrupt_leaves_the_run_open(recorded: Read, local: Options, error: BaseException) -> None:
    """Caught by its user, it is no end; another fit goes on, and ends the run."""
    callback, model = MLOpsCallback(**local), network()
    with pytest.raises(type(error)):
        model.fit(IMAGES, TARGETS, verbose=0, callbacks=[Failing("on_epoch_end", error), callback])
    assert ended(recorded(callback.run.directory)) is None
    model.fit(IMAGES, TARGETS, verbose=0, callbacks=[callback])
    assert ("FINISHED", None) == ended(recorded(callback.run.directory))


def test_training_again_after_a_failure(recorded: Read, local: Options) -> None:
    """The exception is caught and fit called again: the same run, FINISHED in the end."""
    callback, model = MLOpsCallback(**local), network()
    with pytest.raises(ValueError):
        model.fit(IMAGES, TARGETS, epochs=2, verbose=0, callbacks=[Failing("on_epoch_end"), callback])
    model.fit(IMAGES, TARGETS, epochs=2, verbose=0, callbacks=[callback])
    run = recorded(callback.run.directory)
    assert ("FINISHED", None) == ended(run)
    assert [0, 1] == [step for step, _ in run.curve("loss")]


def test_the_exception_is_the_users_own(local: Options) -> None:
    """What leaves fit is the very object that was raised, and its traceback leads to the user's code."""
    error = ValueError("no such digit")
    with pytest.raises(ValueError) as caught:
        network().fit(IMAGES, TARGETS, verbose=0, callbacks=[MLOpsCallback(**local), Failing("on_train_end", error)])
    assert error is caught.value
    frames = [str(entry.path) for entry in caught.traceback]
    assert __file__ == frames[-1]
    if sys.version_info >= (3, 11):
        assert [path for path in frames if "mlops_integrations/" in path] == []


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "inside fit"])
def test_an_exception_that_leaves_evaluate(recorded: Read, local: Options, inside: bool) -> None:
    """Of an evaluation alone it is the end; one inside fit that is caught there is not."""
    callback = MLOpsCallback(**local)

    class Evaluating(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            evaluate(self.model)

    def evaluate(model: Any) -> None:
        with pytest.raises(ValueError, match="no such digit"):
            model.evaluate(IMAGES, TARGETS, verbose=0, callbacks=[callback, Failing("on_test_begin")])

    if inside:
        network().fit(IMAGES, TARGETS, verbose=0, callbacks=[callback, Evaluating()])
    else:
        evaluate(network())
    run = recorded(callback.run.directory)
    assert (("FINISHED", None) if inside else FAILED) == ended(run)
    assert 1 == run.journals


def test_another_models_failure_is_not_ours(recorded: Read, local: Options) -> None:
    """Two models train at the same time, each with a run; what leaves one fit ends its run alone."""
    good, bad = MLOpsCallback(**local), MLOpsCallback(**local)

    class Training(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            with pytest.raises(ValueError):
                network().fit(IMAGES, TARGETS, verbose=0, callbacks=[bad, Failing("on_epoch_end")])
            told.append(ended(recorded(good.run.directory)))

    told: list[Any] = []
    network().fit(IMAGES, TARGETS, verbose=0, callbacks=[good, Training()])
    assert [None] == told
    assert ("FINISHED", None) == ended(recorded(good.run.directory))
    assert FAILED == ended(recorded(bad.run.directory))


def test_a_given_run_is_left_open_by_a_failure(recorded: Read, local: Options) -> None:
    """Its owner may catch the exception and go on; its end tells nothing of what was caught."""
    with mlops.start_run(**local) as run:
        with pytest.raises(ValueError):
            network().fit(IMAGES, TARGETS, verbose=0, callbacks=[MLOpsCallback(run=run), Failing("on_epoch_end")])
        assert run.is_open
    assert ("FINISHED", None) == ended(recorded(run.directory))


class Batched(keras.utils.PyDataset):
    """Data that come in batches, of which only the data set knows the size."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 12

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Any:
        return IMAGES[index * 12 : index * 12 + 12], TARGETS[index * 12 : index * 12 + 12]


def unknown() -> Iterator[Any]:
    """A generator tells nothing."""
    while True:
        yield IMAGES[:12], TARGETS[:12]


@pytest.mark.parametrize(
    ("data", "arguments", "expected"),
    [
        ((IMAGES, TARGETS, 4), {}, "4"),
        ((IMAGES, TARGETS), {"batch_size": 4}, "4"),
        ((IMAGES, TARGETS), {}, "32"),
        (([IMAGES], TARGETS), {}, "32"),
        ((Batched(),), {}, "12"),
        ((unknown(),), {"steps_per_epoch": 3}, None),
    ],
    ids=["by position", "by name", "left out", "inputs in a list", "of a data set", "of a generator"],
)
def test_the_batch_size_is_a_parameter(
    recorded: Read, local: Options, data: Any, arguments: dict[str, Any], expected: str | None
) -> None:
    """As fit was told it, as the data set knows it, or as Keras takes it for arrays; else there is none."""
    callback = MLOpsCallback(**local)
    network().fit(*data, **arguments, verbose=0, callbacks=[callback])
    assert expected == recorded(callback.run.directory).params.get("batch_size")


def test_what_the_user_names_is_not_overruled(recorded: Read, local: Options) -> None:
    """A parameter given to the callback stays as it was given."""
    callback = MLOpsCallback(params={"batch_size": "4 x 8", "loss": "mine"}, **local)
    network().fit(IMAGES, TARGETS, verbose=0, callbacks=[callback])
    run = recorded(callback.run.directory)
    assert ("4 x 8", "mine") == (run.params["batch_size"], run.params["loss"])
    assert {} == run.losses


@pytest.mark.parametrize("form", ["list", "tuple", "alone", "CallbackList"])
def test_callbacks_come_in_any_form(recorded: Read, local: Options, form: str) -> None:
    """Whatever Keras takes; the user's own list is not changed."""
    callback, model = MLOpsCallback(**local), network()
    forms: dict[str, Any] = {
        "list": [callback],
        "tuple": (callback,),
        "alone": callback,
        "CallbackList": keras.callbacks.CallbackList([callback], add_history=True, model=model, epochs=1, steps=2),
    }
    model.fit(IMAGES, TARGETS, verbose=0, callbacks=forms[form])
    run = recorded(callback.run.directory)
    assert [0] == [step for step, _ in run.curve("loss")]
    assert "32" == run.params["batch_size"]
    assert ("FINISHED", None) == ended(run)
    assert [callback] == forms["list"]


def test_the_summary_is_an_artifact(recorded: Read, local: Options) -> None:
    """As Keras prints it, also of a model that is built by its first batch; once, however often fit is called."""

    class Late(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.layer = keras.layers.Dense(1, name="the_only_layer")

        def call(self, inputs: Any) -> Any:
            return self.layer(inputs)

    callback, model = MLOpsCallback(**local), Late()
    model.compile(optimizer="sgd", loss="mse")
    for _ in range(2):
        model.fit(IMAGES, TARGETS, verbose=0, callbacks=[callback])
    (path,) = (callback.run.directory / "artifacts").iterdir()
    assert "model_summary.txt" == path.name
    assert "the_only_layer" in path.read_text("utf-8")
    assert "Param #" in path.read_text("utf-8")
    assert {} == recorded(callback.run.directory).losses


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_batches_trained_at_once(recorded: Read, local: Options, at_once: int) -> None:
    """With steps_per_execution, Keras tells of the last batch of each; the numbers go on over epochs."""
    callback = MLOpsCallback(log_every_batch=True, **local)
    network(steps_per_execution=at_once).fit(IMAGES, TARGETS, 4, epochs=2, verbose=0, callbacks=[callback])
    last = [*range(at_once - 1, BATCHES - 1, at_once), BATCHES - 1]
    expected = [*last, *(BATCHES + step for step in last)]
    run = recorded(callback.run.directory)
    assert expected == sorted(step for step, _ in run.curve("batch/loss"))
    assert str(at_once) == run.params["steps_per_execution"]


def test_batches_may_be_told_in_many_threads(recorded: Read, local: Options) -> None:
    """Each batch is recorded once, whichever thread tells it, and the next epoch goes on after the last one."""
    callback, count = MLOpsCallback(log_every_batch=True, **local), 400
    callback.set_model(network())
    callback.on_train_begin()
    for epoch in range(2):
        callback.on_epoch_begin(epoch)

        def tell(part: int) -> None:
            for batch in range(part, count, 4):
                callback.on_train_batch_end(batch, {"loss": float(batch)})

        threads = [threading.Thread(target=tell, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    callback.on_train_end()
    expected = [(step, float(step % count)) for step in range(2 * count)]
    assert expected == sorted(recorded(callback.run.directory).curve("batch/loss"))


def test_another_rank_than_zero_records_nothing(root: Path, local: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where several processes train together, only that of rank 0 makes a run."""
    monkeypatch.setenv("RANK", "1")
    network().fit(IMAGES, TARGETS, verbose=0, callbacks=[MLOpsCallback(**local)])
    assert not root.exists()


SCRIPT = """
import os, signal, sys
import keras, numpy as np
from mlops_integrations.keras import MLOpsCallback

class Ending(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            {how}

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.Adam(0.002), loss='mse', metrics=['mae'])
data = np.ones((8, 2), 'float32'), np.ones((8, 1), 'float32')
callback = MLOpsCallback(mode='offline', uploader='thread', log_every_batch=True)
model.fit(*data, batch_size=4, epochs=3, verbose=0, callbacks=[callback, Ending()], validation_data=data)
model.evaluate(*data, verbose=0, callbacks=[callback])
print(keras.backend.backend())
"""

ENDINGS: dict[str, tuple[str, int, tuple[str, str | None] | None]] = {
    "well": ("pass", 0, ("FINISHED", None)),
    "exception": ("raise ValueError('no such digit')", 1, FAILED),
    "interrupt": ("os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT, ("KILLED", "SIGINT")),
    "terminated": ("os.kill(os.getpid(), signal.SIGTERM)", -signal.SIGTERM, None),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, None),
}
"""The code that ends it, its exit code, and what it can say itself of its end."""

CASES = [("jax", how) for how in ("well", "terminated", "killed")]
CASES += [(backend, how) for backend in ("torch", "tensorflow") for how in ("well", "exception", "interrupt")]


@pytest.mark.parametrize(("backend", "how"), CASES)
def test_on_every_backend(
    recorded: Read, train: Train, root: Path, monkeypatch: pytest.MonkeyPatch, backend: str, how: str
) -> None:
    """Epochs, batches, validation, evaluation and the end are recorded alike, whatever Keras computes with."""
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    script, code, ending = ENDINGS[how]
    done = train(SCRIPT.format(how=script))
    assert code == done.returncode, done.stderr
    run = recorded((root / "latest").resolve())
    epochs = 3 if how == "well" else 2
    assert ending == ended(run)
    for key in ("loss", "mae", "val_loss", "val_mae"):
        assert list(range(epochs)) == [step for step, _ in run.curve(key)]
    assert [(step, 0.002) for step in range(epochs)] == run.curve("learning_rate")
    assert list(range(2 * epochs)) == sorted(step for step, _ in run.curve("batch/loss"))
    assert ([2] if how == "well" else []) == [step for step, _ in run.curve("test_loss")]
    assert ("0.002", "4", "mse") == tuple(run.params[key] for key in ("optimizer/learning_rate", "batch_size", "loss"))
    assert {} == run.losses
    if how == "well":
        assert backend in done.stdout


def test_an_evaluation_does_not_mend_a_failure(recorded: Read, local: Options) -> None:
    """A fit that failed, was caught, and was followed by ``evaluate``: the run is FAILED; another fit mends it."""
    callback, model = MLOpsCallback(**local), network()
    with pytest.raises(ValueError):
        model.fit(IMAGES, TARGETS[:-1], verbose=0, callbacks=[callback])
    model.evaluate(IMAGES, TARGETS, verbose=0, callbacks=[callback])
    assert "FAILED" == recorded(callback.run.directory).ending.status
    model.fit(IMAGES, TARGETS, verbose=0, callbacks=[callback])
    assert "FINISHED" == recorded(callback.run.directory).ending.status
