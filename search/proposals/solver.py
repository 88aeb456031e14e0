"""The exact part of the search: least summed loss under predicted latency and size, by integer programming.

A multiple-scheme knapsack with boundary terms and prune variables, solved by HiGHS through ``scipy.optimize.milp``:

    minimise    Σ_g w_g·loss_g(c_g) + ρ·Σ_p w_p·loss_p(s_p)
    subject to  base + Σ_g latency_g(c_g, s) + Σ_e boundary_e·[domains differ] + Σ_p branch_p·[s_p removes all] ≤ L
                overhead + Σ_g bytes_g(c_g)·r_g(s) ≤ S

over one scheme c_g a group and one level s_p a prune variable; r_g is the part of the group that stays, latency is
latency_gc·r_g − scaling_g·(1 − r_g), and a group that is gone has neither loss nor boundaries. That is linear in

    x_gck  group g takes scheme c at combination k of the levels of the variables that touch it; Σ_ck x_gck = 1
    z_ps   variable p is at level s: Σ x_gck over the k with p at s, for every group g that p touches
    y_e    the edge is a boundary: y_e ≥ a_ud − a_vd − gone_v, likewise with u and v exchanged, y_e ≤ 2 − a_ud − a_vd,
           y_e ≤ 1 − gone_u, y_e ≤ 1 − gone_v, with a_gd = Σ x in domain d and gone_g = Σ x of combinations that
           remove g; one domain's lower bounds follow from the others'

Lower bounds alone would do where boundaries cost something; a fitted model may also find one that pays, so the upper
bounds are there as well.

Costs enter HiGHS as whole numbers of a small unit, with half a unit to spare, because its tolerances are absolute. They
are rounded *down*, so that nothing feasible is lost; every solution is then evaluated again in plain arithmetic, and
one that breaks a limit (or was tried before) is cut off and the rest solved again: what comes back keeps its limits
exactly. Should that take too many cuts, costs are rounded *up*, which can only err towards caution. NaN and infinite
coefficients are refused (``problem``): HiGHS answers them with nonsense.

Where so many prune variables touch one group that their levels combine in too many ways, those of least share of the
latency are not pruned by that solve.

Deterministic, unless the time limit strikes; then the best solution found so far counts.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from bitfront.search.proposals.ilp_instance import IlpInstance, keeps
from bitfront.search.proposals.suppress_stdout import suppress_stdout
from bitfront.search.space.pruning import SparsityIndices
from bitfront.search.space.space import ActivationType, Encoding

_OBJECTIVE_SCALE = 1e4  # HiGHS stops within an absolute gap of 1e-6; losses span five orders of magnitude
_LEAST_LOSS = 1e-300  # the largest loss below it is not scaled up at once, which overflows
_UNITS = 1e5  # the largest cost of a row in units; an x off by HiGHS's tolerance is then a tenth of a unit
_MAX_CUTS = 12
_MAX_COMBINATIONS = 64  # of levels, a group


def solve(
    problem: IlpInstance,
    *,
    max_ratio: float | None = None,
    max_bytes: float | None = None,
    weights: Sequence[float] | None = None,
    fixed: SparsityIndices | None = None,
    tried: Collection[Encoding] = (),
    gap: float = 0.0,
    time_limit_s: float = 2.0,
) -> Encoding | None:
    """The solution of least weighted loss within the limits that was not tried before.

    Args:
        problem: Coefficients.
        max_ratio: L, upper limit of the predicted ratio; None is none.
        max_bytes: S, upper limit of the bytes; None is none.
        weights: w ≥ 0, one a group, then one a prune variable; None weighs all alike.
        fixed: SparsityIndices of the prune variables; None leaves them to the solver.
        tried: Solutions not to come back with.
        gap: Relative optimality gap at which HiGHS may stop; 0 asks for the optimum.
        time_limit_s: Wall-clock limit of each run of HiGHS, in seconds.

    Returns:
        One index a group, then one a prune variable, canonical; None where nothing fits (or was found in time).

    Raises:
        ValueError: If a limit or a weight is NaN or infinite, or a weight is negative, or a fixed level is not there.
    """
    for name, limit in (("max_ratio", max_ratio), ("max_bytes", max_bytes)):
        if limit is not None and not math.isfinite(limit):
            raise ValueError(f"{name} must be finite or None, got {limit}")
    count = len(problem.losses) + problem.variables
    scale = np.ones(count) if weights is None else np.asarray(weights, dtype=np.float64)
    if scale.shape != (count,) or not np.isfinite(scale).all() or (scale < 0).any():
        raise ValueError(f"weights must be one finite number ≥ 0 a group and prune variable, got {scale.tolist()}")
    offered = _offered(problem, fixed)
    for rounding in (np.floor, np.ceil):
        program = _Program(problem, max_ratio, max_bytes, scale, offered, rounding)
        for _ in range(_MAX_CUTS):
            columns = program.run(gap, time_limit_s)
            if columns is None:
                return None
            encoding = problem.pruning_effects.canonical(program.encoding(columns))
            if keeps(problem, encoding, max_ratio, max_bytes) and encoding not in tried:
                return encoding
            program.cut_off(columns)
    return None


class _Column(NamedTuple):
    """Variable x of the program: a scheme of a group at the levels of the prune variables that touch it."""

    scheme: int
    levels: dict[int, int]
    loss: float
    latency: float
    size: float
    domain: ActivationType | None  # None: the group is gone
    allowed: bool


def _offered(problem: IlpInstance, fixed: SparsityIndices | None) -> list[tuple[int, ...]]:
    """The levels of each prune variable that a solve decides between."""
    prunes = problem.pruning_effects.prunes
    if fixed is None:
        levels = [tuple(range(len(prune.sparsities))) for prune in prunes]
    elif len(fixed) == len(prunes) and all(0 <= s < len(p.sparsities) for s, p in zip(fixed, prunes, strict=True)):
        levels = [(level,) for level in fixed]
    else:
        raise ValueError(f"fixed must be one level a prune variable, got {fixed}")

    def share(variable: int) -> float:
        left = problem.pruning_effects.groups(tuple(levels[p][-1] if p == variable else 0 for p in range(len(prunes))))
        return math.fsum(cost * (1 - part) for cost, part in zip(problem.scaling, left, strict=True))

    for group in range(len(problem.losses)):
        touching = problem.pruning_effects.touching(group)
        for variable in sorted(touching, key=share):
            if math.prod(len(levels[p]) for p in touching) > _MAX_COMBINATIONS:
                levels[variable] = levels[variable][:1]
    return levels


def _columns(problem: IlpInstance, group: int, offered: Sequence[tuple[int, ...]]) -> list[_Column]:
    """All x of a group; where it is gone there is one scheme."""
    touching = problem.pruning_effects.touching(group)
    found = []
    for combination in product(*(offered[p] for p in touching)):
        levels = dict(zip(touching, combination, strict=True))
        left = problem.pruning_effects.layers(tuple(levels.get(p, 0) for p in range(len(offered))))
        part = problem.pruning_effects.part(group, left) if touching else 1.0
        for scheme in range(len(problem.losses[group]) if part else 1):
            column = _Column(
                scheme=scheme,
                levels=levels,
                loss=problem.losses[group][scheme] if part else 0.0,
                latency=problem.cost(group, scheme, part),
                size=problem.sizes[group][scheme] * part,
                domain=problem.domains[group][scheme] if part else None,
                allowed=problem.allowed[group][scheme],
            )
            found.append(column)
    return found


class _Program:
    """The matrices of one solve; columns are all x, group by group, then all y_e, then all z, variable by variable."""

    def __init__(
        self,
        problem: IlpInstance,
        max_ratio: float | None,
        max_bytes: float | None,
        weights: NDArray[np.float64],
        offered: Sequence[tuple[int, ...]],
        rounding: Callable[[float], float],
    ) -> None:
        self._round = rounding
        self._offered = offered
        self._groups = [_columns(problem, group, offered) for group in range(len(problem.losses))]
        self._edges = len(problem.edges)
        # First column of each group, of y and of each variable, and how many columns there are.
        widths = [*map(len, self._groups), self._edges, *map(len, offered)]
        self._starts = np.concatenate([[0], np.cumsum(widths)]).astype(int)
        self._y = int(self._starts[len(self._groups)])
        self._rows: list[dict[int, float]] = []
        self._lower: list[float] = []
        self._upper: list[float] = []
        for start, stop in self._exclusive():
            self._add(dict.fromkeys(range(start, stop), 1.0), 1.0, 1.0)
        self._add_edges(problem)
        self._add_levels(problem)
        flat = [column for columns in self._groups for column in columns]
        z = [(p, level) for p, levels in enumerate(offered) for level in levels]
        if max_ratio is not None:
            removals = [problem.removal(p, level) for p, level in z]
            self._add_limit([*(c.latency for c in flat), *problem.boundary, *removals], max_ratio, problem.base)
        if max_bytes is not None:
            self._add_limit([c.size for c in flat], max_bytes, problem.overhead_bytes)
        loss = np.zeros(int(self._starts[-1]))
        weighted = [w * c.loss for w, columns in zip(weights, self._groups, strict=False) for c in columns]
        loss[: self._y] = weighted
        scale = problem.prune_weight * weights[len(self._groups) :]
        loss[self._y + self._edges :] = [scale[p] * problem.pruning_effects.prunes[p].losses[level] for p, level in z]
        peak = float(np.abs(loss).max(initial=0.0))
        if 0 < peak < _LEAST_LOSS:
            loss, peak = loss / peak, 1.0
        self._objective = loss * (_OBJECTIVE_SCALE / peak if peak > 0 else 1.0)
        upper = np.ones(len(loss))
        upper[: self._y] = [column.allowed for column in flat]
        self._bounds = Bounds(np.zeros(len(loss)), upper)
        self._integrality = np.ones(len(loss))  # y too: without a continuous rest, nothing is left for HiGHS to repair

    def _exclusive(self) -> list[tuple[int, int]]:
        """Ranges of columns of which exactly one is taken: each group's, each variable's."""
        ranges = list(zip(self._starts[:-1].tolist(), self._starts[1:].tolist(), strict=True))
        return ranges[: len(self._groups)] + ranges[len(self._groups) + 1 :]

    def _add(self, row: dict[int, float], lower: float, upper: float) -> None:
        self._rows.append(row)
        self._lower.append(lower)
        self._upper.append(upper)

    def _add_limit(self, costs: Sequence[float], limit: float, base: float) -> None:
        """Add base + Σ costs ≤ limit in whole units; what holds in plain arithmetic holds in costs rounded down."""
        unit = max((max(map(abs, costs), default=0.0) or 1.0) / _UNITS, sys.float_info.min)
        units = {column: float(self._round(cost / unit)) for column, cost in enumerate(costs)}
        # Plain arithmetic rounds a sum to its last place, and what lies beyond all sums need not be written in units.
        beyond = sum(map(abs, units.values())) + 1
        left = (limit - base + math.ulp(max(abs(limit), abs(base)))) / unit
        left = min(max(left, -beyond), beyond)
        self._add({column: value for column, value in units.items() if value}, -math.inf, math.floor(left) + 0.5)

    def _add_edges(self, problem: IlpInstance) -> None:
        for edge, (first, second) in enumerate(problem.edges):
            y = self._y + edge
            gone_u, gone_v = self._taken(first, None), self._taken(second, None)
            for gone in (gone_u, gone_v):
                if gone:
                    self._add({**gone, y: 1.0}, -math.inf, 1.0)  # y ≤ 1 − gone
            for domain in ActivationType:
                u, v = self._taken(first, domain), self._taken(second, domain)
                if u or v:
                    self._add({**u, **v, y: 1.0}, -math.inf, 2.0)  # y ≤ 2 − u − v
                    if domain is not ActivationType.FLOAT:
                        minus = dict.fromkeys((*u, *gone_u), -1.0)
                        self._add({**minus, **v, y: -1.0}, -math.inf, 0.0)  # y ≥ v − u − gone_u
                        minus = dict.fromkeys((*v, *gone_v), -1.0)
                        self._add({**u, **minus, y: -1.0}, -math.inf, 0.0)  # y ≥ u − v − gone_v

    def _taken(self, group: int, domain: ActivationType | None) -> dict[int, float]:
        start = int(self._starts[group])
        return {start + i: 1.0 for i, column in enumerate(self._groups[group]) if column.domain is domain}

    def _add_levels(self, problem: IlpInstance) -> None:
        """Tie each group's combinations to z, and keep at 0 what another variable has removed altogether."""
        z = {(p, s): self._z(p) + i for p, levels in enumerate(self._offered) for i, s in enumerate(levels)}
        for group, columns in enumerate(self._groups):
            start = int(self._starts[group])
            for p, level in (pair for pair in z if pair[0] in columns[0].levels):
                row = {start + i: 1.0 for i, column in enumerate(columns) if column.levels[p] == level}
                self._add({**row, z[p, level]: -1.0}, 0.0, 0.0)
        for p in range(len(self._offered)):
            for other, level in problem.pruning_effects.covers(p):
                if (p, 0) in z and (other, level) in z:
                    self._add({z[other, level]: 1.0, z[p, 0]: -1.0}, -math.inf, 0.0)

    def _z(self, variable: int) -> int:
        return int(self._starts[len(self._groups) + 1 + variable])

    def encoding(self, columns: Sequence[int]) -> Encoding:
        """Encoding that columns, one of each group and each variable, stand for."""
        count = len(self._groups)
        schemes = [
            group[i - start].scheme
            for group, i, start in zip(self._groups, columns, self._starts.tolist(), strict=False)
        ]
        levels = [self._offered[p][i - self._z(p)] for p, i in enumerate(columns[count:])]
        return (*schemes, *levels)

    def cut_off(self, columns: Sequence[int]) -> None:
        """Exclude one solution: at least one group or variable must change."""
        self._add(dict.fromkeys(columns, 1.0), -math.inf, len(columns) - 1.0)

    def run(self, gap: float, time_limit_s: float) -> list[int] | None:
        """Solve what stands: the column taken of each group and each variable; None where HiGHS has none to offer."""
        if not self._objective.size:  # nothing to decide
            return []
        entries = [(r, c, value) for r, row in enumerate(self._rows) for c, value in row.items()]
        rows, columns, values = zip(*entries, strict=True)
        matrix = sparse.csr_array((values, (rows, columns)), shape=(len(self._rows), len(self._objective)))
        with suppress_stdout():
            result = milp(
                self._objective,
                integrality=self._integrality,
                bounds=self._bounds,
                constraints=LinearConstraint(matrix, self._lower, self._upper),
                options={"time_limit": time_limit_s, "mip_rel_gap": gap},
            )
        if result.x is None:
            return None
        return [start + int(np.argmax(result.x[start:stop])) for start, stop in self._exclusive()]
