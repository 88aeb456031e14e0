"""The exact part of the search: least summed loss under predicted latency and size, by integer programming.

A multiple-choice knapsack with boundary terms, solved by HiGHS through ``scipy.optimize.milp``:

    minimise    Σ_g Σ_c w_g·loss_gc·x_gc
    subject to  Σ_c x_gc = 1                                            every group takes one choice
                base + Σ latency_gc·x_gc + Σ_e boundary_e·y_e ≤ L       predicted ratio to FP32
                overhead + Σ bytes_gc·x_gc ≤ S
                y_e = 0 where the domains of u and v are the same, else 1

With a_gd = Σ_{c in domain d} x_gc that is linear: y_e ≥ |a_ud − a_vd| and y_e ≤ 2 − a_ud − a_vd for every domain d; one
domain's lower bounds follow from the others'. Lower bounds alone would do where boundaries cost something; a fitted
model may also find one that pays, so the upper bounds are there as well. Costs enter HiGHS as whole numbers of a small
unit, with half a unit to spare, because its tolerances are absolute. They are rounded *down*, so that nothing feasible
is lost; every solution is then evaluated again in plain arithmetic, and one that breaks a limit (or was tried before)
is cut off and the rest solved again: what comes back keeps its limits exactly. Should that take too many cuts, costs
are rounded *up*, which can only err towards caution. NaN and infinite coefficients are refused: HiGHS answers them with
nonsense.

Deterministic, unless the time limit strikes; then the best solution found so far counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from search.latency_model import LatencyModel
from search.quiet import quiet_stdout
from search.space import Code, Domain, Space

_OBJECTIVE_SCALE = 1e4  # HiGHS stops within an absolute gap of 1e-6; losses span five orders of magnitude
_UNITS = 1e5  # the largest cost of a row in units; an x off by HiGHS's tolerance is then a tenth of a unit
_MAX_CUTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Coefficients, one row a group and one entry a choice.

    Attributes:
        losses: loss_gc ≥ 0.
        latency: latency_gc, in units of FP32's latency.
        sizes: bytes_gc.
        domains: What the choice reads and writes: an edge whose ends differ in it is a boundary.
        allowed: Whether the choice may be taken.
        edges: Pairs of group indices.
        boundary: boundary_e, in units of FP32's latency.
        overhead_bytes: What the file holds besides the groups' weights.
        base: Predicted ratio where every coefficient is 0.
    """

    losses: tuple[tuple[float, ...], ...]
    latency: tuple[tuple[float, ...], ...]
    sizes: tuple[tuple[float, ...], ...]
    domains: tuple[tuple[Domain, ...], ...]
    allowed: tuple[tuple[bool, ...], ...]
    edges: tuple[tuple[int, int], ...] = ()
    boundary: tuple[float, ...] = ()
    overhead_bytes: float = 0.0
    base: float = 1.0

    def __post_init__(self) -> None:
        for name, rows in (("loss", self.losses), ("latency", self.latency), ("size", self.sizes)):
            for group, row in enumerate(rows):
                if not all(map(math.isfinite, row)):
                    raise ValueError(f"{name} of group {group} must be finite, got {row}")
        if not all(map(math.isfinite, (*self.boundary, self.overhead_bytes, self.base))):
            raise ValueError(f"boundary, overhead and base must be finite, got {self.boundary}")
        if len(self.edges) != len(self.boundary):
            raise ValueError(f"expected one boundary cost an edge, got {len(self.boundary)} for {len(self.edges)}")

    @classmethod
    def of(cls, space: Space, model: LatencyModel, overhead_bytes: float = 0.0) -> Problem:
        """The problem a space and a latency model pose."""
        return cls(
            losses=tuple(group.losses for group in space.groups),
            latency=tuple(
                tuple(model.choice_cost(g, c) for c in range(len(group.choices)))
                for g, group in enumerate(space.groups)
            ),
            sizes=tuple(tuple(map(float, group.size_bytes)) for group in space.groups),
            domains=tuple(tuple(map(Domain.of, group.arithmetic)) for group in space.groups),
            allowed=tuple(tuple(c not in group.baseline_only for c in group.choices) for group in space.groups),
            edges=space.edges,
            boundary=model.boundary,
            overhead_bytes=overhead_bytes,
        )

    def loss(self, code: Code) -> float:
        """Summed loss of a solution, unweighted."""
        return math.fsum(row[c] for row, c in zip(self.losses, code, strict=True))

    def ratio(self, code: Code) -> float:
        """Predicted latency of a solution over FP32's."""
        domains = [row[c] for row, c in zip(self.domains, code, strict=True)]
        crossed = (cost for (u, v), cost in zip(self.edges, self.boundary, strict=True) if domains[u] != domains[v])
        return math.fsum((self.base, *(row[c] for row, c in zip(self.latency, code, strict=True)), *crossed))

    def size(self, code: Code) -> float:
        """Bytes of a solution, overhead included."""
        return math.fsum((self.overhead_bytes, *(row[c] for row, c in zip(self.sizes, code, strict=True))))


def solve(
    problem: Problem,
    *,
    max_ratio: float | None = None,
    max_bytes: float | None = None,
    weights: Sequence[float] | None = None,
    tried: Collection[Code] = (),
    gap: float = 0.0,
    time_limit_s: float = 2.0,
) -> Code | None:
    """The solution of least weighted loss within the limits that was not tried before.

    Args:
        problem: Coefficients.
        max_ratio: L, upper limit of the predicted ratio; None is none.
        max_bytes: S, upper limit of the bytes; None is none.
        weights: w_g ≥ 0, one a group; None weighs all alike.
        tried: Solutions not to come back with.
        gap: Relative optimality gap at which HiGHS may stop; 0 asks for the optimum.
        time_limit_s: Wall-clock limit of each run of HiGHS, in seconds.

    Returns:
        One index a group, or None where nothing fits (or nothing was found in time).

    Raises:
        ValueError: If a limit or a weight is NaN or infinite, or a weight is negative.
    """
    for name, limit in (("max_ratio", max_ratio), ("max_bytes", max_bytes)):
        if limit is not None and not math.isfinite(limit):
            raise ValueError(f"{name} must be finite or None, got {limit}")
    scale = np.ones(len(problem.losses)) if weights is None else np.asarray(weights, dtype=np.float64)
    if scale.shape != (len(problem.losses),) or not np.isfinite(scale).all() or (scale < 0).any():
        raise ValueError(f"weights must be one finite number ≥ 0 a group, got {scale.tolist()}")
    for rounding in (np.floor, np.ceil):
        program = _Program(problem, max_ratio, max_bytes, scale, rounding)
        for _ in range(_MAX_CUTS):
            code = program.run(gap, time_limit_s)
            if code is None:
                return None
            if keeps(problem, code, max_ratio, max_bytes) and code not in tried:
                return code
            program.cut_off(code)
    return None


def keeps(problem: Problem, code: Code, max_ratio: float | None, max_bytes: float | None) -> bool:
    """Whether a solution keeps both limits, evaluated in plain arithmetic."""
    return (max_ratio is None or problem.ratio(code) <= max_ratio) and (
        max_bytes is None or problem.size(code) <= max_bytes
    )


class _Program:
    """The matrices of one solve; columns are all x_gc, group by group, then all y_e."""

    def __init__(
        self,
        problem: Problem,
        max_ratio: float | None,
        max_bytes: float | None,
        weights: NDArray[np.float64],
        rounding: Callable[[float], float],
    ) -> None:
        self._round = rounding
        widths = [len(row) for row in problem.losses]
        self._starts = np.concatenate([[0], np.cumsum(widths)]).astype(int)
        self._choices = int(self._starts[-1])
        self._columns = self._choices + len(problem.edges)
        self._rows: list[dict[int, float]] = []
        self._lower: list[float] = []
        self._upper: list[float] = []
        for start, width in zip(self._starts, widths, strict=False):
            self._add({start + c: 1.0 for c in range(width)}, 1.0, 1.0)
        self._add_edges(problem)
        latency = dict(enumerate(value for row in problem.latency for value in row))
        latency |= {self._choices + e: cost for e, cost in enumerate(problem.boundary)}
        if max_ratio is not None:
            self._add_limit(latency, max_ratio - problem.base)
        if max_bytes is not None:
            sizes = dict(enumerate(value for row in problem.sizes for value in row))
            self._add_limit(sizes, max_bytes - problem.overhead_bytes)
        loss = np.concatenate([w * np.asarray(row) for w, row in zip(weights, problem.losses, strict=True)] or [[]])
        peak = float(np.abs(loss).max(initial=0.0))
        self._objective = np.zeros(self._columns)
        self._objective[: self._choices] = loss * (_OBJECTIVE_SCALE / peak if peak > 0 else 1.0)
        allowed = np.array([value for row in problem.allowed for value in row], dtype=np.float64)
        self._bounds = Bounds(np.zeros(self._columns), np.concatenate([allowed, np.ones(len(problem.edges))]))
        self._integrality = np.ones(
            self._columns
        )  # y too: without a continuous rest, nothing is left for HiGHS to repair

    def _add(self, row: dict[int, float], lower: float, upper: float) -> None:
        self._rows.append(row)
        self._lower.append(lower)
        self._upper.append(upper)

    def _add_limit(self, row: dict[int, float], limit: float) -> None:
        """Add Σ row ≤ limit in whole units; a limit that holds in real numbers holds in costs rounded down."""
        unit = (max((abs(value) for value in row.values()), default=0.0) or 1.0) / _UNITS
        units = {column: float(self._round(value / unit)) for column, value in row.items()}
        self._add(
            {column: value for column, value in units.items() if value}, -math.inf, math.floor(limit / unit) + 0.5
        )

    def _add_edges(self, problem: Problem) -> None:
        for edge, (first, second) in enumerate(problem.edges):
            y = self._choices + edge
            here, there = problem.domains[first], problem.domains[second]
            for domain in (d for d in Domain if d in here or d in there):
                u = {self._starts[first] + c: 1.0 for c, other in enumerate(here) if other is domain}
                v = {self._starts[second] + c: 1.0 for c, other in enumerate(there) if other is domain}
                self._add({**u, **v, y: 1.0}, -math.inf, 2.0)  # y ≤ 2 − u − v
                if domain is not Domain.FLOAT:
                    minus_u, minus_v = dict.fromkeys(u, -1.0), dict.fromkeys(v, -1.0)
                    self._add({**minus_u, **v, y: -1.0}, -math.inf, 0.0)  # y ≥ v − u
                    self._add({**u, **minus_v, y: -1.0}, -math.inf, 0.0)  # y ≥ u − v

    def cut_off(self, code: Code) -> None:
        """Exclude one solution: at least one group must change."""
        self._add({self._starts[g] + c: 1.0 for g, c in enumerate(code)}, -math.inf, len(code) - 1.0)

    def run(self, gap: float, time_limit_s: float) -> Code | None:
        """Solve what stands; None where HiGHS has no solution to offer."""
        entries = [(r, c, value) for r, row in enumerate(self._rows) for c, value in row.items()]
        rows, columns, values = zip(*entries, strict=True)
        matrix = sparse.csr_array((values, (rows, columns)), shape=(len(self._rows), self._columns))
        with quiet_stdout():
            result = milp(
                self._objective,
                integrality=self._integrality,
                bounds=self._bounds,
                constraints=LinearConstraint(matrix, self._lower, self._upper),
                options={"time_limit": time_limit_s, "mip_rel_gap": gap},
            )
        if result.x is None:
            return None
        bounds = zip(self._starts[:-1], self._starts[1:], strict=True)
        return tuple(int(np.argmax(result.x[start:stop])) for start, stop in bounds)
