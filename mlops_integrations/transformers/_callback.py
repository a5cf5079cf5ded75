"""Hugging Face Trainer: ``Trainer(callbacks=[MLOpsCallback()])``, or ``report_to="mlops"`` once this is imported.

Records the Trainer's logs: ``train/loss``, ``eval/loss``, ``test/loss`` at its global step, values about a whole
training or evaluation (``summary/train_runtime``) apart from the curves; its arguments, the model's configuration
(``model/...``) and adapters (``peft/...``) as parameters. A hyperparameter search is a run, each trial its child.

The Trainer notifies its callbacks neither of exceptions nor of the begin of an evaluation. So ``train``, ``evaluate``,
``predict`` and ``hyperparameter_search`` of its class are wrapped with the first callback, see ``patching``. The
wrappers do nothing for a Trainer without a callback of ours, and exceptions pass through unchanged.
"""

# ruff: noqa: ARG001, ARG002 - the arguments of hooks are the Trainer's own

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

from mlops_integrations.framework_support.guard import guarded, hook
from mlops_integrations.framework_support.run_handle import RunHandle, keywords_of_start_run, restored
from mlops_integrations.journal import ending
from mlops_integrations.recording.run import Run
from mlops_integrations.transformers import _log_recorder, _patches, _translation
from mlops_integrations.transformers._log_recorder import LogRecorder
from mlops_integrations.transformers._patches import TrainerListener

try:
    from accelerate.utils import broadcast_object_list
    from transformers import Trainer, TrainerCallback
    from transformers.integrations import MLflowCallback, integration_utils
    from transformers.trainer_callback import ExportableState
except ModuleNotFoundError as error:
    if error.name not in {"transformers", "accelerate"}:  # it is installed: its own error says what is missing
        raise
    raise ImportError("transformers is not installed: pip install transformers") from None

logger: Final = logging.getLogger("mlops_integrations")


def _is_recording(callback: MLOpsCallback, args: Any, state: Any, control: Any, **kwargs: Any) -> bool:
    """True if this process records: the Trainer calls hooks in all processes."""
    return callback._records(main=state.is_world_process_zero)


_hook: Final = hook(_is_recording)


class MLOpsCallback(TrainerCallback, ExportableState, TrainerListener):  # type: ignore[misc]  # our type checks run without transformers
    """Records a Trainer's logs and parameters. One callback is one run, however often it trains and evaluates.

    A checkpoint names the run that it belongs to: ``train(resume_from_checkpoint=...)`` resumes it.

    Args:
        run: an open run to record into, left open; instead of the keywords of ``start_run``.
        raw_names: record metrics by the Trainer's own names (``loss``, ``eval_loss``, ``train_runtime``).
        log_checkpoints: keep a copy of each checkpoint among the run's artifacts, made in the background.
        per_rank: record the logs of each process, with names that begin with ``rank1/`` and so on for all but rank 0.
            The Trainer's own values are the same in all of them; those that your code logs need not be.
        experiment_name: this and all that follow: see ``start_run``.
        experiment_id: instead of the name.
        run_name: Default: that of the Trainer's arguments, then the script's name.
        tracking_uri: the server's URI. Default: ``MLFLOW_TRACKING_URI``; without either, recorded locally.
        resume: a run to go on with.
        parent: the run that this one belongs to.
        params: recorded beside those of the Trainer and the model.
        tags: recorded when the run begins.
        directory: where run directories are made.
        mode: "online", "offline" (record only) or "disabled". Default: ``MLOPS_MODE``, then "online".
        uploader: "process" or "thread". Default: ``MLOPS_UPLOADER``, then "process".

    Raises:
        TypeError: ``run`` is not a Run.
        ValueError: ``run`` and keywords are both given, or one makes no sense.

    Example:
        Trainer(model, args, train_dataset=data, callbacks=[MLOpsCallback(experiment_name="digits")]).train()
    """

    def __init__(
        self,
        run: Run | None = None,
        *,
        raw_names: bool = False,
        log_checkpoints: bool = False,
        per_rank: bool = False,
        experiment_name: str | None = None,
        experiment_id: str | None = None,
        run_name: str | None = None,
        tracking_uri: str | None = None,
        resume: Run | str | None = None,
        parent: Run | str | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, object] | None = None,
        directory: str | os.PathLike[str] | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        uploader: Literal["process", "thread"] | None = None,
    ) -> None:
        self._options = {key: value for key, value in keywords_of_start_run(locals()).items() if value is not None}
        self._handle = RunHandle(run, self._options)
        self._logs = LogRecorder(raw_names=raw_names, given=frozenset(params or ()))
        self._log_checkpoints = log_checkpoints
        self._per_rank = per_rank
        self._rank = 0
        self._shared = False
        self._is_bare = run is None and not self._options
        self._trial: RunHandle | None = None
        """The handle of the current or last trial, within a search."""
        self._trial_number: int | None = None
        self._begun = False
        self._failure: tuple[str, str | None] | None = None
        """Status and reason of a training that raised an exception: a later evaluation does not change them."""
        self._mlflow_said = False
        self._resumed: Mapping[str, Any] | None = None
        """The run that is named by the checkpoint that the training resumes from."""
        _patches.watch(Trainer)

    @classmethod
    def _implicit(cls, **options: Any) -> MLOpsCallback:
        """Make the callback for autolog: it prefers the user's open run, and gives way to one that is added later."""
        callback = cls(**options)
        callback._is_bare = True
        callback._handle.borrow()
        return callback

    @property
    def run(self) -> Run:
        """The run, opened now if it was not yet; while a trial of a search is trained, that of the trial."""
        return self._current.run if self._training else self._handle.run

    @property
    def _current(self) -> RunHandle:
        return self._trial or self._handle

    def _records(self, *, main: bool) -> bool:
        return (main or self._shared) and not self._is_extra

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(_log_recorder.with_recorder(restored(state)))
        _patches.watch(Trainer)

    # -- calls from the wrappers of the Trainer's methods (see _patches) ------------------------------------------

    @guarded
    def _entering_train(self, trainer: Any, trial: Any) -> None:
        self._trial, self._trial_number = None, getattr(trial, "number", None)
        self._logs.training_begins()
        if not self._mlflow_said:
            self._mlflow_said = _say_if_mlflow_records_too(trainer)

    @guarded
    def _entering_evaluation(self, trainer: Any, prefix: str) -> None:
        self._logs.evaluation_begins(prefix)
        if not self._training:
            if trainer.hp_search_backend is None:
                self._trial = None
            self._began(trainer.args, trainer.model)

    @guarded
    def _left(self, error: BaseException) -> None:
        """Called when the training, or an evaluation outside of one, has raised an exception."""
        was_training, self._training = self._training, False
        if not self._begun:
            return
        if type(error).__name__ == "TrialPruned":
            self._current.run.set_tag("mlops.pruned", "true")
            self._ended()
            return
        self._current.began()  # if it had ended: after all, it did not end well
        self._current.left(error)
        if isinstance(error, Exception) and was_training:
            self._failure = ending.of_exception(error)
        self._end_parent()  # a search may go on without this trial

    @guarded
    def _search_done(self, best: Any) -> None:
        """Record the best trial, as the search has ended."""
        self._searching = False
        if self._begun:
            if hasattr(best, "objective"):  # a search with several objectives has several best trials
                self._handle.run.set_tags({"mlops.best_trial": best.run_id, "mlops.best_objective": best.objective})
            self._end_parent()
            self._trial = None

    @guarded
    def _search_left(self, error: BaseException) -> None:
        """Called when the search has raised an exception, which a trial may have recorded already."""
        self._searching = False
        if self._begun:
            self._trial = None
            self._handle.began()
            self._handle.left(error)

    # -- hooks ----------------------------------------------------------------------------------------------------

    @_hook
    def on_init_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """A Trainer was made: take the run's name from its arguments."""
        self._keep_name(args)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """``train`` begins, or restarts with smaller batches. Called in all processes."""
        self._take_place(state)
        if self._is_extra:
            return
        if state.is_world_process_zero:
            self._open(args)
        self._share(args)
        self._begin(args, state, control, model=model)

    @_hook
    def _begin(self, args: Any, state: Any, control: Any, model: Any) -> None:
        if state.is_hyper_param_search and self._trial is None and not self._rank:
            self._trial = self._of_trial(state)
        self._training, self._failure = True, None
        self._began(args, model, _translation.flat(state.trial_params or {}, "trial/") if self._trial else {})
        if args.auto_find_batch_size:
            self._current.run.set_tag("train_batch_size", state.train_batch_size)

    @_hook
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """``train`` has ended."""
        self._training = False
        self._ended()

    @_hook
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Record the logs of the Trainer, also those of the user (``trainer.log``) and of evaluations."""
        self._logs.record(self._current.run, logs or {}, state.global_step, self._rank)

    @_hook
    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """An evaluation has ended; ``on_log`` has recorded its values."""
        if not self._training:
            self._ended()

    @_hook
    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        """Record the metrics of ``predict``, which are not logged."""
        self._logs.record(self._current.run, metrics or {}, state.global_step, self._rank)
        if not self._training:
            self._ended()

    @_hook
    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep a copy of a checkpoint, if asked to."""
        if self._log_checkpoints and args.should_save:
            folder = Path(args.output_dir)
            if self._trial is not None:
                folder /= state.trial_name or f"run-{self._trial_number}"
            name = f"checkpoint-{state.global_step}"
            self._current.run.log_artifact(folder / name, f"checkpoints/{name}", wait=False)

    # -- content of a checkpoint ----------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return our part of a checkpoint's ``trainer_state.json``: the run, and its parameters."""
        if not self._begun:
            return {"args": {}, "attributes": {}}
        try:
            run = self._current.run
            recorded = {"uid": run.uid, "run_id": run.run_id, "params": self._logs.params_of(run.uid)}
        except Exception as error:  # as in a hook: the checkpoint is worth more
            self._handle.swallow(error)
            return {"args": {}, "attributes": {}}
        return {"args": {}, "attributes": {"recorded_in": recorded}}

    @property
    def recorded_in(self) -> Mapping[str, Any] | None:
        """The run as a checkpoint names it."""
        return cast("Mapping[str, Any] | None", self.state()["attributes"].get("recorded_in"))

    @recorded_in.setter
    def recorded_in(self, _: object) -> None:
        """With ``restore_callback_states_from_checkpoint`` the Trainer makes a new callback in the place of each.

        The new one continues as the one that it replaces. The checkpoint's run is resumed when the training begins.
        """
        replaced = _patches.replaced(self)
        if replaced is not None:
            self.__dict__.update(replaced.__dict__)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _keep_name(self, args: Any) -> None:
        if args.run_name and args.run_name != args.output_dir:
            self._handle.keep(run_name=args.run_name)

    @guarded
    def _take_place(self, state: Any) -> None:
        """Read our state in a checkpoint; add it to one that was made without us, or the Trainer would fail to save."""
        name = type(self).__name__
        known = state.stateful_callbacks.get(name, {})
        self._resumed = (known[-1] if isinstance(known, list) else known).get("attributes", {}).get("recorded_in")
        state.stateful_callbacks.setdefault(name, self.state())

    @guarded
    def _open(self, args: Any) -> None:
        """Open the run: the one that the checkpoint names, if the training resumes from one."""
        self._keep_name(args)
        recorded = self._resumed
        if recorded and not self._begun:
            before = self._handle.prepared
            self._handle.resume(recorded["uid"], recorded["run_id"])
            run = self._handle.prepared
            if run is not before and (run.uid == recorded["uid"] or recorded["run_id"]):
                self._logs.resume(run.uid, recorded["params"])
        self._handle.began()

    @guarded
    def _share(self, args: Any) -> None:
        """Share the run of rank 0. All processes must call this: the others would wait for one that does not."""
        if self._per_rank and not self._shared and args.world_size > 1:
            self._shared, self._rank = True, args.process_index
            self._handle.share(self._rank, _broadcast)

    def _began(self, args: Any, model: Any, more: Mapping[str, str] | None = None) -> None:
        self._keep_name(args)
        self._begun = True
        self._current.began()
        if not self._rank:
            self._logs.record_params(self._current.run, {**_translation.params(args, model), **(more or {})})

    def _ended(self) -> None:
        self._current.ended(*(self._failure or ()))
        self._end_parent()

    def _end_parent(self) -> None:
        if self._trial is not None and not self._searching:
            self._handle.ended()

    def _of_trial(self, state: Any) -> RunHandle:
        """Return the handle of one trial of a search; its run is a child of this callback's run."""
        self._handle.began()
        run, options = self._handle.run, dict(self._options)
        for own in ("run_name", "resume", "parent"):
            options.pop(own, None)
        if not self._handle.is_own:
            options = _translation.options_beside(run)
        name = state.trial_name or f"{run.name}-{'trial' if self._trial_number is None else self._trial_number}"
        return RunHandle(None, {**options, "parent": run, "run_name": name})


# -- beside the callback ---------------------------------------------------------------------------------------------


def _broadcast(value: Any) -> Any:
    return broadcast_object_list([value], from_process=0)[0]


def _say_if_mlflow_records_too(trainer: Any) -> bool:
    found = any(isinstance(callback, MLflowCallback) for callback in trainer.callback_handler.callbacks)
    if found:
        text = "mlops: report_to names mlflow, too: two runs will show for this training. Leave mlflow out of it"
        logger.warning(text)
    return found


def _register() -> None:
    """Register ``report_to="mlops"``, if transformers has its table, which is not a public API."""
    table = getattr(integration_utils, "INTEGRATION_TO_CALLBACK", None)
    if isinstance(table, dict):
        table["mlops"] = MLOpsCallback


_register()
