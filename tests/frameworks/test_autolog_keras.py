"""``autolog()`` and Keras: every fit is recorded, nothing of the user's is changed, and it can be undone."""

from __future__ import annotations

import gc
import subprocess
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlops_integrations as mlops

pytest.importorskip("jax")
keras = pytest.importorskip("keras")

from mlops_integrations.keras import MLOpsCallback  # noqa: E402

DATA = np.ones((16, 4), "float32"), np.ones((16, 1), "float32")

Read = Callable[[Path], Any]
Options = Mapping[str, str]
Train = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def _off_afterwards() -> Iterator[None]:
    yield
    mlops.autolog(disable=True)


@pytest.fixture
def on(local: Options) -> Options:
    """Autologging is on for Keras, with these keywords."""
    mlops.autolog(frameworks=["keras"], **local)
    return local


@pytest.fixture
def runs(root: Path, recorded: Read) -> Callable[[], list[Any]]:
    """Reads all runs of this test, the first one first."""

    def read() -> list[Any]:
        directories = [path for path in root.glob("*") if path.is_dir() and not path.is_symlink()]
        return sorted((recorded(path) for path in directories), key=lambda run: run.spec.start_time)

    return read


Runs = Callable[[], list[Any]]


def network() -> Any:
    """The smallest network."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse")
    return model


def fit(model: Any, *, epochs: int = 2, **options: Any) -> list[float]:
    """Train; the losses as Keras keeps them."""
    return model.fit(*DATA, epochs=epochs, verbose=0, **options).history["loss"]  # type: ignore[no-any-return]


class Counting(keras.callbacks.Callback):
    """A user's callback that counts, and fails where it is told to."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.fits = 0
        self.error = error

    def on_train_begin(self, logs: object = None) -> None:
        self.fits += 1

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        if self.error is not None:
            raise self.error


def test_a_fit_is_recorded(runs: Runs, on: Options) -> None:
    """With no callback of ours in the script: metrics, parameters, the end."""
    losses = fit(network(), validation_data=DATA)
    (run,) = runs()
    assert list(enumerate(losses)) == run.curve("loss")
    assert {"loss", "val_loss", "learning_rate"} == run.keys
    assert ("2", "32") == (run.params["epochs"], run.params["batch_size"])
    assert ("FINISHED", None) == (run.ending.status, run.ending.reason)
    assert {} == run.losses


@pytest.mark.parametrize("form", ["list", "empty list", "tuple", "alone", "None", "CallbackList", "by position"])
def test_callbacks_of_any_form_are_left_as_they_are(runs: Runs, on: Options, form: str) -> None:
    """Ours joins a copy: the user's callbacks are called, once, and the user's container is not changed."""
    counting, model = Counting(), network()
    forms = {"list": [counting], "empty list": [], "tuple": (counting,), "alone": counting, "None": None}
    forms["CallbackList"] = keras.callbacks.CallbackList([counting], add_history=True, model=model, epochs=1, steps=1)
    given = forms.get(form, [counting])
    before = list(given.callbacks if form == "CallbackList" else given) if isinstance(given, (list, tuple)) else None
    for _ in range(2):
        if form == "by position":
            model.fit(*DATA, None, 1, 0, given)
        else:
            model.fit(*DATA, verbose=0, callbacks=given)
    if before is not None:
        assert before == list(given)
    if form == "CallbackList":
        assert MLOpsCallback not in {type(each) for each in given.callbacks}
    assert (0 if form in {"None", "empty list"} else 2) == counting.fits
    (run,) = runs()
    assert [0, 1] == [step for step, _ in run.curve("loss")]
    assert {} == run.losses


def test_each_model_is_a_run(runs: Runs, on: Options) -> None:
    """A second fit of the same model goes on with its run; evaluate belongs to it."""
    first, second = network(), network()
    losses = fit(first)
    other = fit(second)
    losses += fit(first)
    (tested,) = {first.evaluate(*DATA, verbose=0)}
    one, two = runs()
    assert list(enumerate(losses)) == one.curve("loss")
    assert [(3, tested)] == one.curve("test_loss")
    assert list(enumerate(other)) == two.curve("loss")
    assert ["FINISHED"] * 2 == [run.ending.status for run in (one, two)]


def test_evaluate_of_an_unknown_model_makes_no_run(root: Path, on: Options) -> None:
    """What was not trained here is not recorded, unless the user has a run open for it."""
    network().evaluate(*DATA, verbose=0)
    assert not root.exists()


def test_the_users_run_is_used_and_left_open(runs: Runs, on: Options) -> None:
    """A run that start_run has opened takes what is trained meanwhile; afterwards a model has its own."""
    model = network()
    with mlops.start_run(**on) as mine:
        losses = fit(model)
        tested = model.evaluate(*DATA, verbose=0)
        assert mine.is_open
    fit(model)
    first, second = runs()
    assert mine.uid == first.spec.uid
    assert list(enumerate(losses)) == first.curve("loss")
    assert [(1, tested)] == first.curve("test_loss")
    assert [0, 1] == [step for step, _ in second.curve("loss")]


def test_two_runs_of_the_user_one_after_the_other(runs: Runs, on: Options) -> None:
    """Each takes what was trained while it was open, of the same model too."""
    model, losses = network(), []
    for _ in range(2):
        with mlops.start_run(**on):
            losses.append(fit(model))
    assert [list(enumerate(each)) for each in losses] == [run.curve("loss") for run in runs()]
    assert ["SGD"] * 2 == [run.params["optimizer/name"] for run in runs()]


def test_our_own_callback_is_enough(runs: Runs, on: Options) -> None:
    """Where the user has given one, nothing is added."""
    callback = MLOpsCallback(experiment_name="mine", **on)
    model = network()
    fit(model, callbacks=[callback])
    model.evaluate(*DATA, verbose=0, callbacks=[callback])
    (run,) = runs()
    assert "mine" == run.spec.experiment_name
    assert [0, 1] == [step for step, _ in run.curve("loss")]
    assert 1 == len(run.curve("test_loss"))


def test_switched_on_again(runs: Runs, on: Options) -> None:
    """Twice is as good as once, and the last keywords count."""
    mlops.autolog(experiment_name="digits", tags={"team": "vision"}, params={"seed": 7}, **on)
    counting = Counting()
    fit(network(), callbacks=[counting])
    (run,) = runs()
    assert 1 == counting.fits
    assert [0, 1] == [step for step, _ in run.curve("loss")]
    assert ("digits", "vision", "7") == (run.spec.experiment_name, run.tags["team"], run.params["seed"])


def test_undone(train: Train) -> None:
    """Off again, Keras' methods and the finders of imports are what they were, and nothing is recorded."""
    done = train("""
import os, sys
os.environ["KERAS_BACKEND"] = "jax"
import keras, numpy as np
import mlops_integrations as mlops
plain, finders = (keras.Model.fit, keras.Model.evaluate), list(sys.meta_path)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(loss="mse")
for trained in (False, True):
    mlops.autolog(mode="offline", uploader="thread")
    assert plain != (keras.Model.fit, keras.Model.evaluate)
    assert finders != sys.meta_path
    if trained:
        model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
    mlops.autolog(disable=True)
    assert plain == (keras.Model.fit, keras.Model.evaluate)
    assert finders == sys.meta_path
    model.fit(np.ones((8, 4)), np.ones((8, 1)), verbose=0)
print(len([name for name in os.listdir("mlops_runs") if name != "latest" and not name.startswith(".")]))
""")
    assert (0, "1\n") == (done.returncode, done.stdout), done.stderr


def test_undone_beside_a_callback_of_ours(runs: Runs, on: Options) -> None:
    """Switching autologging off does not take from a callback of the user's what it needs."""
    callback = MLOpsCallback(**on)
    fit(network())
    mlops.autolog(disable=True)
    with pytest.raises(ValueError, match="no such digit"):
        fit(network(), callbacks=[callback, Counting(ValueError("no such digit"))])
    assert ["FINISHED", "FAILED"] == [run.ending.status for run in runs()]


def test_only_the_frameworks_named(root: Path, local: Options) -> None:
    """Keras is left alone when others are named."""
    mlops.autolog(frameworks=["transformers"], **local)
    fit(network())
    assert not root.exists()


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no such digit"), "FAILED"), (KeyboardInterrupt(), None)], ids=["error", "Ctrl-C"]
)
def test_what_leaves_fit_is_the_users(runs: Runs, on: Options, error: BaseException, status: str | None) -> None:
    """The very exception that was raised, after one call of Keras' own fit, and it is the run's status."""
    counting = Counting(error)
    with pytest.raises(type(error)) as caught:
        fit(network(), callbacks=[counting])
    assert error is caught.value
    assert 1 == counting.fits
    (run,) = runs()
    assert status == (None if run.ending is None else run.ending.status)


def test_wrong_arguments_are_keras_business(root: Path, on: Options) -> None:
    """A call that can't be made fails as it would without us, and leaves nothing behind."""
    with pytest.raises(TypeError, match="epoch"):
        network().fit(*DATA, epoch=3)
    assert not root.exists()


def test_a_recorded_model_can_be_freed(on: Options) -> None:
    """We do not keep alive what the user has let go."""
    model = network()
    fit(model, validation_data=DATA)
    model.evaluate(*DATA, verbose=0)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("first", ["autolog", "keras"])
def test_before_or_after_the_import(recorded: Read, train: Train, root: Path, first: str) -> None:
    """The order of autolog() and the import of Keras does not matter."""
    lines = ["mlops.autolog(mode='offline', uploader='thread')", "import keras"]
    script = f"""
import os
os.environ["KERAS_BACKEND"] = "jax"
import mlops_integrations as mlops
{chr(10).join(lines if first == "autolog" else reversed(lines))}
import numpy as np
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
model.compile(loss="mse")
model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=2, verbose=0)
raise ValueError("no such digit")
"""
    done = train(script)
    assert 1 == done.returncode
    run = recorded((root / "latest").resolve())
    assert [0, 1] == [step for step, _ in run.curve("loss")]
    assert "FINISHED" == run.ending.status
