"""A trial: params are drawn, and the candidate trained and validated with them. It alone of operations needs torch."""

import socket
from typing import Any

import optuna
import pytorch_lightning as pl
from pydantic import ValidationError

from convoy.core import params, paths, tasks
from convoy.core.params import ParamsInvalid, read_section
from convoy.kinds.learning import candidates
from convoy.operations.tuning.space import TuneParams, apply_values, read_space
from convoy.operations.tuning.study import HOST, Subject, sampler_of
from convoy.training.callbacks import Diverged
from convoy.training.classifier import LearningParams
from convoy.training.trainer import Splits, TrainerParams, train


class Pruning(pl.Callback):
    """Reports each epoch's figure to the study, and stops a training that is behind the others."""

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial, self.metric, self.pruned = trial, metric, False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning ends the training after this epoch, so that its curves are complete."""
        self.trial.report(float(trainer.callback_metrics[self.metric]), trainer.current_epoch)
        self.pruned = self.trial.should_prune()
        trainer.should_stop = trainer.should_stop or self.pruned


class Objective:
    """Trains a candidate with drawn params as `dvc repro` would; its value is the best epoch's on validation.

    That epoch is the one that training keeps. The value is the metric of section tune, whatever the class weights, so
    that trials compare even where class_weights is tried.
    """

    number: int | None = None  # of the trial that runs

    def __init__(self, subject: Subject) -> None:
        self.candidate, self.params = tasks.read().candidate(subject.candidate), subject.params()
        self.space = read_space(subject.candidate)
        self.metric = f"validation_{read_section(TuneParams, 'tune', path=paths.RELEASE_PARAMS).metric}"
        # More devices are for more processes; Lightning would start this one again for each, as part of a trial.
        one_device = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
        self.trainer = read_section(TrainerParams, "trainer").model_copy(update=one_device)
        self.contract = candidates.input_contract(self.candidate, self.params["input"])
        files = [paths.split_file(subject.data, "train"), paths.split_file(subject.data, "validation")]
        opened = [candidates.open_dataset(self.candidate.kind, file, self.contract) for file in files]
        self.train, self.validation = opened

    def __call__(self, trial: optuna.Trial) -> float:
        """Raises TrialPruned for a trial that was stopped, or whose loss is not finite."""
        self.number = trial.number
        trial.set_user_attr(HOST, socket.gethostname())
        trial.study.sampler = sampler_of(trial)
        drawn = {key: tried.draw(trial, key) for key, tried in self.space.items()}
        pl.seed_everything(self.trainer.seed, workers=True, verbose=False)
        network, splits, learning = self._build(drawn)
        pruning = Pruning(trial, self.metric)
        try:
            trained = train(network, splits, self.trainer, learning, f"trial {trial.number}", callbacks=[pruning])
        except Diverged as error:
            raise optuna.TrialPruned(str(error)) from None
        trial.set_user_attr("curves", trained.curves)
        value = next(row[self.metric] for row in trained.curves if row["epoch"] == trained.best_epoch)
        if pruning.pruned:
            raise optuna.TrialPruned
        return value

    def _build(self, drawn: dict[str, Any]) -> tuple[Any, Splits, LearningParams]:
        entry, key = apply_values(self.params, drawn, self.candidate.name), self.candidate.key
        try:
            batches = params.validate(candidates.batch_model(self.candidate.kind), entry["batches"], f"{key}.batches")
            learning = params.validate(LearningParams, entry["learning"], f"{key}.learning")
            description = candidates.describe(self.candidate, entry["network"], self.contract, self.train, {})
            network = candidates.build(description)
        except (ParamsInvalid, ValidationError) as error:
            raise ParamsInvalid(f"{key} with {drawn}: {error}") from None
        return network, Splits(self.train, self.validation, batches, self.trainer.seed), learning
