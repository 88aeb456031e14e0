"""Every number that steers a search, in one frozen value: ``PolicyConfig``, by topic.

A config is passed in, so that a study can vary it; the defaults are what the command line searches with. Each field has
its unit and what is known of its effect. Figures in brackets are of an ablation,

    python -m bitfront.experiments.sampler_study --ablate --groups 24 --seeds 4 --trials 40

the hypervolume found without that part, in the whole box and within limits that bind, over that of all ablations
together; the full sampler comes to (0.985, 0.63). Means over four problems, whose volumes within limits reach from 0 to
1: only large differences say something. A field without a figure was set by hand and **was not ablated**.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bitfront.lowering.compute_type import ComputeType


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocationConfig:
    """Division of trials and time. None of these was ablated.

    Attributes:
        finalists_time_fraction: Of a time limit, kept for measuring the finalists.
        finalists_most_s: Seconds kept for that at most.
        most_duplicates: Proposals in a row that repeat an artifact, after which the space counts as exhausted.
        precision_fraction: With passes: of the trials and of the time, for the precisions of the given network.
        variant_fraction: With passes: of the trials, after which no variant is made on purpose.
        variant_seed_fraction: With passes: of the usual numbers of seeds.
        search_training_fraction: Of the training time, for the search; the rest is for the final fine-tuning.
        fine_tuning_overhead: Wall clock that fine-tuning takes over its training time, as a factor: its candidates are
            tried as well.
        fine_tuning_most_fraction: Of the time limit, kept for the fine-tuning at most.
        sampler_variant_fraction: Of the trials: as many variants, and the sampler asks for no further ones.
        retried_candidates: Candidates of a variant that are tried again after it was trained.
    """

    finalists_time_fraction: float = 0.2
    finalists_most_s: float = 30.0
    most_duplicates: int = 20
    precision_fraction: float = 0.35
    variant_fraction: float = 0.5
    variant_seed_fraction: float = 0.5
    search_training_fraction: float = 0.4
    fine_tuning_overhead: float = 1.15
    fine_tuning_most_fraction: float = 0.5
    sampler_variant_fraction: float = 0.1
    retried_candidates: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedingConfig:
    """Candidates before the sampler's. None of these was ablated.

    Attributes:
        greedy_seeds: Uniform low precisions with the most sensitive groups one step higher.
        segment_seeds: Random contiguous segments of one compute type each. Without them a latency model fitted to
            uniform baselines alone cannot tell a group from its boundaries.
        solver_seeds: Solutions of least summed loss under a grid of limits.
        most_segments: Segments of a segment seed at most, ≥ 2.
        limit_multiples: Multiples of a limit that are solved for, in this order: the latency model errs, and the limit
            itself is worth most.
        grid_steps: Points between the extremes, for a quantity without a limit.
        joint_gap: Relative optimality gap of a solve over precisions and prunings, whose losses are rough guesses.
        student_samples: Calibration samples that a student's precisions are scored on at most.
        student_seeds: Solutions that are tried on a student after its fine-tuning.
    """

    greedy_seeds: int = 8
    segment_seeds: int = 6
    solver_seeds: int = 8
    most_segments: int = 5
    limit_multiples: tuple[float, ...] = (1.0, 0.9, 0.97, 1.06, 0.8)
    grid_steps: int = 4
    joint_gap: float = 0.01
    student_samples: int = 64
    student_seeds: int = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPriorConfig:
    """Prior of the latency model, before anything was timed; the first dozen measurements outweigh it.

    In units of the given network's latency. None of these was ablated.

    Attributes:
        noise_grid: Standard deviations of a measured ratio; that of least leave-one-out error is taken.
        gains: Compute type → expected ratio − 1 with everything in it.
        conversions: Expected cost of a conversion at every edge.
        shared_deviation: Standard deviation of what all groups share of these.
        group_deviation: Likewise of one group's own part, times the group's expected share of the latency.
        edge_deviation: Likewise of one edge's own part, over the number of groups.
        scaling: Expected fraction of the latency that scales with what pruning keeps.
        branch_deviation: Standard deviation of what a removed branch saves besides its layers.
    """

    noise_grid: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1)
    gains: Mapping[ComputeType, float] = field(
        default_factory=lambda: MappingProxyType(
            {
                ComputeType.INT8: -0.6,
                ComputeType.WEIGHT_ONLY: -0.3,
                ComputeType.FP16: -0.4,
                ComputeType.DYNAMIC_INT8: -0.3,
            }
        )
    )
    conversions: float = 0.4
    shared_deviation: float = 0.5
    group_deviation: float = 0.7
    edge_deviation: float = 0.5
    scaling: float = 0.8
    branch_deviation: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class SurrogateConfig:
    """Judgement of unmeasured candidates.

    Attributes:
        outside_weight: What hypervolume outside the limits counts beside that within them. At 0 (0.951, 0.46), as
            with random proposals alone: before something keeps the limits, nothing else leads there.
        tie_slope: Fraction of the accuracies' span that a decade of loss costs where the fitted steps are flat.
            Not ablated.
        margin: Of the worst measured latency and size, where the whole hypervolume ends. Not ablated.
        accuracy_margin: Fraction of the accuracies' span below the worst, likewise. Not ablated.
        certainty: Predictive standard deviations by which a candidate is over the latency limit before it is left
            unbuilt: 95 % one-sided. Not ablated.
        prune_weights: What training may leave of a pruning's loss; of equally good ones the first. Not ablated.
        file_overhead_pull: Pull of the fitted bytes a layer towards 0, in observations. Not ablated.
        latency: The latency model's prior.
    """

    outside_weight: float = 0.1
    tie_slope: float = 0.01
    margin: float = 1.05
    accuracy_margin: float = 0.05
    certainty: float = 1.64
    prune_weights: tuple[float, ...] = (1.0, 0.3, 0.1, 0.03, 0.01)
    file_overhead_pull: float = 0.03
    latency: LatencyPriorConfig = field(default_factory=LatencyPriorConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerConfig:
    """Proposals of the sampler: a pool of mutations of the front, and what is taken from it.

    Attributes:
        trades: Candidates of a pool that raise one group and lower another. At 0 (0.980, 0.58).
        segments: Candidates that set a contiguous segment to one precision. At 0 (0.974, 0.75).
        mutations: Candidates that change one to ``most_changes`` groups at random. At 0 (0.976, 0.73).
        solves: Candidates solved for under randomly re-weighted losses. At 0 (0.975, 0.47), at a quarter of the
            time a proposal takes.
        transfers: Candidates on another variant's pruning, where there is more than one variant. Not ablated.
        prunings: Candidates of a new pruning, where one may be asked for. Not ablated.
        random_fraction: Of the proposals, taken from the pool whatever their score. At 0 (0.981, 0.61), at 1
            (0.951, 0.46).
        within_fraction: Of the mutations, those that start within the limits where something is within. Not ablated.
        most_changes: Groups or prune variables that a mutation changes at most. Not ablated.
        segment_divisor: A segment has a mean length of the groups over it. Not ablated.
        trade_partners: Groups a trade looks at. Not ablated.
        trade_choices: Best balanced ones of these that it is drawn from. Not ablated.
        weight_spread: Standard deviation of a re-weighted loss's logarithm. Not ablated.
        solve_limit_s: Seconds a solve may take. Not ablated.
        solve_gap: Relative optimality gap of a solve: its weights are random anyway. Not ablated.
        near_limit: Solves aim between these multiples of a limit. Not ablated.
        free_fraction: Of the solves without a limit, those that leave a quantity free. Not ablated.
        deepest: Of what precisions alone reach, where a solve for a new pruning may aim without a limit. Not ablated.
        enumerable: Encodings up to which a space is enumerated to tell that it is exhausted. Not ablated.
        draws: Random draws for one that was not tried, where the pool is empty. Not ablated.
        surrogate: How the pool is judged.
    """

    trades: int = 12
    segments: int = 12
    mutations: int = 12
    solves: int = 1
    transfers: int = 8
    prunings: int = 8
    random_fraction: float = 0.1
    within_fraction: float = 0.5
    most_changes: int = 3
    segment_divisor: float = 3.0
    trade_partners: int = 16
    trade_choices: int = 3
    weight_spread: float = 0.8
    solve_limit_s: float = 0.5
    solve_gap: float = 0.01
    near_limit: tuple[float, float] = (0.8, 1.03)
    free_fraction: float = 0.5
    deepest: float = 0.5
    enumerable: int = 20_000
    draws: int = 200
    surrogate: SurrogateConfig = field(default_factory=SurrogateConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringConfig:
    """Numbers of samples that a candidate is scored on before it may be stopped. None of these was ablated.

    Attributes:
        variant_samples: Where a variant is judged by it.
        trained_samples: Where the variant or the artifact was trained further: that cost far more than scoring.
    """

    variant_samples: int = 1000
    trained_samples: int = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionConfig:
    """Latencies that a search decides by. Neither was ablated.

    Attributes:
        widest: Half of a ratio's interval, relative to the ratio, up to which a latency may stop a candidate; a wider
            one is timed again first, and if it stays so it stops no other candidate.
        timings: Of an incumbent, at different moments, before it stops another candidate.
    """

    widest: float = 0.03
    timings: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class PruningConfig:
    """Learning of the costs of pruning before any variant is made. None of these was ablated.

    Attributes:
        training_fraction: Of the training time, or of the time limit if that is less, for losses after a training.
        training_steps: Steps of each such training at least and at most; fewer tell nothing, more little else.
        training_samples: Samples that its losses are taken on: they are small next to how samples differ.
        most_probes: Random prunings that are timed at most.
        removal_probability: That a branch is gone in the first of them.
    """

    training_fraction: float = 0.15
    training_steps: tuple[int, int] = (8, 40)
    training_samples: int = 1024
    most_probes: int = 10
    removal_probability: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetConfig:
    """Limits that variants are solved for. None of these was ablated.

    Attributes:
        fractions: Of what the given network reaches by precisions alone: how many targets, and where there is no floor
            of accuracy also which.
        caution: Times the learned power of training, in what a variant is expected to come to: what is extrapolated
            from few steps is too kind to small networks.
        near_limits: Multiples of the limits of latency and size that the given network does not reach; sizes are
            predicted better.
        perturbations: Solutions for other losses that each solution is compared with.
        perturbation_spread: Standard deviation of such a loss's logarithm.
        loss_slack: Times the least sum of losses that one of them may have.
        least_steps: Steps of a first rung from which on solutions are compared: comparing takes as long.
    """

    fractions: tuple[float, ...] = (0.7, 0.5, 0.85, 0.6)
    caution: float = 0.6
    near_limits: tuple[tuple[float, float], ...] = ((0.97, 0.99), (0.88, 0.9))
    perturbations: int = 4
    perturbation_spread: float = 0.25
    loss_slack: float = 1.2
    least_steps: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class HalvingConfig:
    """Asynchronous successive halving over training steps. None of these was ablated.

    Attributes:
        factor: η: how much longer each rung trains, and that the best 1/η go on.
        rungs: How many there are.
        warm_up: Variants that come before any is trained on.
        training_fraction: Of the training time, for one variant up to the last rung.
        epochs: Passes over the training data up to the last rung at most.
        least_steps: Of the first rung, unless the data are seen whole in fewer.
    """

    factor: int = 3
    rungs: int = 3
    warm_up: int = 2
    training_fraction: float = 0.3
    epochs: int = 8
    least_steps: int = 45


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningCurveConfig:
    """Expected effect of further training, and what that is worth. None of these was ablated.

    Attributes:
        prior_power: Power of the steps that a gap of accuracy falls with; counts as one variant seen.
        power_factors: Times the learned power: what is expected is the mean over them.
        least_gap: Of accuracy between the given network and the floor, for what follows.
        below_gaps: Gaps below the given network from which on volume counts that does not reach the floor.
        floor_gaps: Likewise where the floor is reached.
        below_weight: What volume below the floor counts beside volume above it.
        without_floor: Of the given network's accuracy, the span that counts where there is no floor.
        beyond_limit: Of a limit, where volume within it ends: holding it just so is worth something.
    """

    prior_power: float = 0.5
    power_factors: tuple[float, ...] = (0.6, 1.0, 1.6)
    least_gap: float = 0.01
    below_gaps: float = 3.0
    floor_gaps: float = 2.0
    below_weight: float = 0.1
    without_floor: float = 0.3
    beyond_limit: float = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTuningConfig:
    """Division of the training time that is left at the end. None of these was ablated.

    Attributes:
        shared_fraction: Of the time, for several variants; the rest is for the best of them.
        most_variants: Of these at most, with a training time that was asked for.
        usual_variants: And without one, where all of the time is shared.
        whole_epochs: Passes over the data that each should get at least, or fewer are chosen.
        trying_fraction: Of the time left, spent on trying candidates.
        most_artifacts: For quantisation-aware training.
        least_steps: Of a training.
        few_data_steps: Steps that few data may be seen in, whatever the number of passes.
        most_epochs: Passes over the data at most, with a training time that was asked for.
        usual_epochs: And without one.
        qat_most_steps: Of quantisation-aware training.
        qat_step_cost: Of a step of the artifact in steps of the module, its batches being half as large.
        qat_fraction: Of the time, where there are variants to fine-tune as well.
        rounding_fraction: Of the allowed drop: rounding that costs less is not worth training.
    """

    shared_fraction: float = 0.5
    most_variants: int = 3
    usual_variants: int = 2
    whole_epochs: int = 1
    trying_fraction: float = 0.1
    most_artifacts: int = 2
    least_steps: int = 10
    few_data_steps: int = 60
    most_epochs: int = 60
    usual_epochs: int = 8
    qat_most_steps: int = 1000
    qat_step_cost: float = 0.7
    qat_fraction: float = 0.2
    rounding_fraction: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """Policy of a search: every number that steers it."""

    allocation: AllocationConfig = field(default_factory=AllocationConfig)
    seeding: SeedingConfig = field(default_factory=SeedingConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    scoring: ScoringConfig = field(default_factory=ScoringConfig)
    decisions: DecisionConfig = field(default_factory=DecisionConfig)
    pruning: PruningConfig = field(default_factory=PruningConfig)
    targets: TargetConfig = field(default_factory=TargetConfig)
    halving: HalvingConfig = field(default_factory=HalvingConfig)
    learning_curve: LearningCurveConfig = field(default_factory=LearningCurveConfig)
    fine_tuning: FineTuningConfig = field(default_factory=FineTuningConfig)


DEFAULTS = PolicyConfig()
"""What the command line searches with."""
