"""Everything one run works with, as ``prepare`` puts it together; functions take of it what they use."""

from __future__ import annotations

from dataclasses import dataclass

from bitfront.core import ContentStore, Inputs, Metric, OutputsRead
from bitfront.search.events import Listener
from bitfront.search.measuring.evaluate import Evaluator
from bitfront.search.measuring.given import Given
from bitfront.search.measuring.runner import ModelRunner
from bitfront.search.measuring.timed import TimedSampler
from bitfront.search.options import RunOptions
from bitfront.search.proposals.sampler import FrontSampler
from bitfront.search.results.finalists import Rerun
from bitfront.search.results.record import Record
from bitfront.search.run_folder.storage import default_storage
from bitfront.search.run_folder.study import Study, past_trials
from bitfront.search.space.space import Space
from bitfront.search.trial import Trial
from bitfront.search.variants.builder import VariantBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The parts of one run.

    Attributes:
        options: What was asked for.
        listener: Hears of progress.
        runner: What candidates are tried on.
        given: What they are compared with.
        evaluator: Tries them and remembers them.
        rerun: How finalists are measured again.
        record: Writes the run folder.
        store: The run's cache.
        calibration: Unlabelled inputs; often what the network was trained on.
        unseen: Inputs of the search's part of the evaluation data, without their labels; no pass trains on them.
        metric: How outputs are scored.
        outputs_read: What the metric reads of the network's outputs.
        builder: Makes model variants, where passes take part; else None.
        study_name: Name of the Optuna study.
        earlier_study: Name of the study of the run that is resumed; None for a fresh start.
    """

    options: RunOptions
    listener: Listener
    runner: ModelRunner
    given: Given
    evaluator: Evaluator
    rerun: Rerun
    record: Record
    store: ContentStore
    calibration: Inputs
    unseen: Inputs
    metric: Metric
    outputs_read: OutputsRead
    builder: VariantBuilder | None
    study_name: str
    earlier_study: str | None

    @property
    def storage(self) -> str:
        """Optuna storage URL."""
        return self.options.storage or default_storage(self.options.out)

    def open_study(self, space: Space, sampler: FrontSampler, architecture: str = "") -> Study:
        """The run's study of a space; its finished trials are the evaluator's from here on.

        Args:
            space: What may be decided.
            sampler: Proposes.
            architecture: The student architecture whose space it is; empty for the given network's.
        """
        name = f"{self.study_name}-{architecture}" if architecture else self.study_name
        study = Study(self.storage, name, space, TimedSampler(sampler, self.runner.watch), architecture)
        self.evaluator.trials.extend(study.trials())
        return study

    def earlier_trials(self, space: Space) -> list[Trial]:
        """Trials of the run that is resumed, where other budgets gave it another study."""
        if self.earlier_study in (None, self.study_name):
            return []
        return past_trials(self.storage, str(self.earlier_study), space)
