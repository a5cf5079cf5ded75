"""Methods of other people's classes, wrapped and unwrapped: called once, unchanged in what they give and raise."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from mlops_integrations.framework_support import patching


class Base:
    """A framework's base class."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def train(self, *args: Any, fails: BaseException | None = None, **kwargs: Any) -> str:
        """Train."""
        self.calls.append((args, kwargs))
        if fails is not None:
            raise fails
        return "trained"


class Model(Base):
    """Has ``train`` from its base."""


ORIGINAL = Base.train
told: list[tuple[Any, BaseException]] = []


def tell(subject: Any, error: BaseException) -> None:
    """A hook that remembers."""
    told.append((subject, error))


def add_callback(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A hook that changes what is called with."""
    return args, {**kwargs, "callbacks": [*(kwargs.get("callbacks") or ()), "ours"]}


def broken(*_: Any) -> Any:
    """A hook of ours with a bug."""
    raise RuntimeError("our bug")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    told.clear()
    yield
    Base.train = ORIGINAL  # type: ignore[method-assign]
    if "train" in vars(Model):
        del Model.train


@pytest.mark.parametrize(
    "error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()], ids=lambda error: repr(error)
)
def test_what_leaves_the_method_is_told_and_goes_on(error: BaseException) -> None:
    """The very exception, once, whatever it is."""
    patching.wrap_method(Base, "train", failed=tell)
    model = Model()
    with pytest.raises(type(error)) as caught:
        model.train(1, fails=error)
    assert caught.value is error
    assert told == [(model, error)]
    assert model.calls == [((1,), {})]


def test_what_it_gives_is_unchanged() -> None:
    """Value, name, documentation and signature are the method's own; nothing is told of a success."""
    patching.wrap_method(Base, "train", failed=tell)
    assert Model().train() == "trained"
    assert (Base.train.__name__, Base.train.__doc__) == ("train", "Train.")
    assert inspect.signature(Base.train) == inspect.signature(ORIGINAL)
    assert told == []


@pytest.mark.skipif(sys.version_info < (3, 11), reason="before Python 3.11 a traceback can't be shortened")
def test_tracebacks_do_not_show_us() -> None:
    """The user sees the frames that would be there without us."""
    patching.wrap_method(Base, "train", failed=tell)
    with pytest.raises(ValueError, match="x") as caught:
        Model().train(fails=ValueError("x"))
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][1:] == ["train"]
    assert f"{os.sep}patching.py" not in "".join(traceback.format_exception(caught.value))


def test_arguments_may_be_changed() -> None:
    """What a hook gives is what the method is called with; the caller's own list stays."""
    patching.wrap_method(Base, "train", before=add_callback)
    model, callbacks = Model(), ["theirs"]
    model.train(callbacks=callbacks)
    model.train()
    assert model.calls == [((), {"callbacks": ["theirs", "ours"]}), ((), {"callbacks": ["ours"]})]
    assert callbacks == ["theirs"]


def test_a_bug_of_ours_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """Neither before nor after: the method is called once with what it was given, and it is said."""
    patching.wrap_method(Base, "train", before=broken, failed=broken)
    model, error = Model(), ValueError("theirs")
    with pytest.raises(ValueError, match="theirs") as caught:
        model.train(7, fails=error)
    assert caught.value is error
    assert model.calls == [((7,), {})]
    assert caplog.text.count("our bug") == 2


def test_what_it_has_returned() -> None:
    """Called after a success, not after a failure; a bug of ours there changes nothing."""
    returned: list[tuple[Any, Any]] = []

    def done(subject: Any, result: Any) -> None:
        returned.append((subject, result))

    patching.wrap_method(Base, "train", done=done)
    patching.wrap_method(Base, "train", done=broken)
    model = Model()
    assert model.train() == "trained"
    with pytest.raises(ValueError):
        model.train(fails=ValueError())
    assert returned == [(model, "trained")]
    for hook in (done, broken):
        patching.unwrap_method(Base, "train", done=hook)
    assert Base.train is ORIGINAL


def test_wrapped_once() -> None:
    """The same hook twice is called once, another one as well, and one wrapper does for all."""
    patching.wrap_method(Base, "train", failed=tell)
    wrapper = Base.train
    patching.wrap_method(Base, "train", failed=tell)
    patching.wrap_method(Base, "train", before=add_callback)
    assert Base.train is wrapper
    with pytest.raises(ValueError):
        Model().train(fails=ValueError())
    assert len(told) == 1


@pytest.mark.parametrize("owner", [Base, Model], ids=["its own", "inherited"])
def test_as_it_was(owner: type[Base]) -> None:
    """When the last hook is taken away, the class is as it was before."""
    before = dict(vars(owner))
    patching.wrap_method(owner, "train", failed=tell, before=add_callback)
    patching.unwrap_method(owner, "train", failed=tell)
    assert vars(owner) != before
    patching.unwrap_method(owner, "train", before=add_callback)
    assert dict(vars(owner)) == before
    patching.unwrap_method(owner, "train", before=add_callback)


def test_somebody_else_lies_above() -> None:
    """Then theirs stays where it is, and ours below it passes everything through."""
    import functools

    patching.wrap_method(Base, "train", failed=tell)
    ours = Base.train

    @functools.wraps(ours)
    def theirs(self: Base, *args: Any, **kwargs: Any) -> str:
        return "theirs " + ours(self, *args, **kwargs)

    Base.train = theirs  # type: ignore[method-assign]
    patching.wrap_method(Base, "train", failed=tell)  # ours is found below: not wrapped again
    assert Base.train is theirs
    patching.unwrap_method(Base, "train", failed=tell)
    assert Base.train is theirs
    assert Model().train() == "theirs trained"
    with pytest.raises(ValueError):
        Model().train(fails=ValueError())
    assert told == []
