"""A run folder that looks like a real one, made from a seeded toy model of accuracy, latency and size."""

from __future__ import annotations

import copy
import csv
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

from bitfront.core import AccuracyStats, Constraints, LatencyStats, Limit, Scheme
from bitfront.core.pareto import Objectives, pareto_front
from bitfront.report.tooltips import schemes_text

SCHEMES = ("fp32", "fp16", "int8:mse", "int4:gptq")
STORAGE = {"fp32": 1.0, "fp16": 0.5, "int8:mse": 0.25, "int4:gptq": 0.125}
SPEED = {"fp32": 1.0, "fp16": 0.99, "int8:mse": 0.30, "int4:gptq": 0.30}
DAMAGE = {"fp32": 0.0, "fp16": 1e-7, "int8:mse": 2e-3, "int4:gptq": 3e-2}


def layer_names(blocks: int) -> tuple[str, ...]:
    """A stem, ``blocks`` residual blocks of two convolutions, and a classifier."""
    inner = [f"layer{1 + 3 * b // blocks}.{b}.conv{c}" for b in range(blocks) for c in (1, 2)]
    return ("conv1", *inner, "fc")


class ToyNetwork:
    """Numbers that behave like a network's: boundaries cost time, damage costs accuracy, bits cost bytes."""

    def __init__(self, blocks: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.layers = layer_names(blocks)
        self.parameters = {name: 432 * (1 + index) for index, name in enumerate(self.layers)}
        self.weight = {name: self.random.uniform(0.4, 2.5) for name in self.layers}
        self.weight[self.layers[0]] = 4.0

    def size_bytes(self, schemes: dict[str, str]) -> int:
        """File size."""
        return 9_000 + int(sum(4 * self.parameters[name] * STORAGE[schemes[name]] for name in self.layers))

    def ratio(self, schemes: dict[str, str]) -> float:
        """Latency over FP32's."""
        speeds = [SPEED[schemes[name]] for name in self.layers]
        boundaries = sum(abs(a - b) > 0.5 for a, b in itertools.pairwise(speeds))
        return sum(speeds) / len(speeds) + 0.035 * boundaries

    def accuracy(self, schemes: dict[str, str]) -> float:
        """Top-1."""
        damage: float = sum(self.weight[name] * DAMAGE[schemes[name]] for name in self.layers)
        return 0.974 - 0.04 * math.pow(damage, 0.8) + self.random.gauss(0, 0.0004)


def _latency(ratio: float, wobble: float) -> dict[str, Any]:
    median = 7.6 * ratio * wobble
    return LatencyStats(
        median_ms=median,
        p90_ms=1.04 * median,
        ci_low_ms=0.99 * median,
        ci_high_ms=1.01 * median,
        ratio=ratio,
        ratio_low=0.99 * ratio,
        ratio_high=1.01 * ratio,
        rounds=60,
        threads=1,
        batch_size=1,
    ).to_json()


def _accuracy(value: float, samples: int) -> dict[str, Any]:
    half = 1.96 * math.sqrt(value * (1 - value) / samples)
    return AccuracyStats(value=value, ci_low=value - half, ci_high=min(1.0, value + half), samples=samples).to_json()


def measurement(
    *, budget: Constraints, blocks: int = 9, seed: int = 7, trials: int = 60, name: str = "digits"
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """``measurement.json``'s contents and the rows of ``trials.csv`` of a search that ran to its end."""
    toy = ToyNetwork(blocks, seed)
    uniform = {key.partition(":")[0]: dict.fromkeys(toy.layers, key) for key in SCHEMES}
    candidates = [(id_, "baseline", schemes) for id_, schemes in uniform.items()]
    for number in range(len(uniform), trials):
        kinds = toy.random.sample(SCHEMES, k=toy.random.choice((2, 2, 3)))
        cut = sorted(toy.random.sample(range(len(toy.layers)), k=2))
        schemes = {layer: kinds[0] if cut[0] <= index < cut[1] else kinds[-1] for index, layer in enumerate(toy.layers)}
        candidates.append((f"p{number:02d}", "solver" if number < 14 else "sampler", schemes))

    rows: list[dict[str, Any]] = []
    points: dict[str, dict[str, Any]] = {}
    floor = budget.accuracy_floor(0.974)
    for number, (id_, origin, schemes) in enumerate(candidates):
        ratio, size, accuracy = toy.ratio(schemes), toy.size_bytes(schemes), toy.accuracy(schemes)
        over = origin != "baseline" and ratio > 0.9
        latency = _latency(ratio, toy.random.uniform(0.99, 1.01))
        rows.append(
            {
                "number": number,
                "origin": origin,
                "state": "over budget" if over else "complete",
                "size_bytes": size,
                "latency_ms": latency["median_ms"],
                "latency_p90_ms": latency["p90_ms"],
                "ratio": ratio,
                "accuracy": "" if over else accuracy,
                "accuracy_samples": "" if over else 900,
                "seconds": 0.8,
                "reason": "latency is over budget" if over else "",
                "choices": json.dumps(schemes),
            }
        )
        checks = budget.check(
            latency_ms=latency["median_ms"], size_bytes=size, accuracy=accuracy, reference_accuracy=0.974
        )
        violations = [
            text
            for text, limit in (
                (f"latency {latency['median_ms']:.3g} ms > {budget.latency_ms or 0:.2f} ms", Limit.LATENCY),
                (f"size {size / 1000:.0f} kB > {(budget.size_bytes or 0) / 1000:.0f} kB", Limit.SIZE),
                (f"accuracy {100 * accuracy:.2f} % < {100 * floor:.2f} %", Limit.ACCURACY),
            )
            if limit in checks and not checks[limit].met
        ]
        if not over:
            points[id_] = {
                "id": id_,
                "origin": origin,
                "text": schemes_text({layer: Scheme.parse(text) for layer, text in schemes.items()}),
                "config": f"configs/{id_}.json",
                "model": f"models/{id_}.onnx",
                "size_bytes": size,
                "latency": _latency(ratio, toy.random.uniform(0.99, 1.01)),
                "search_latency": latency,
                "accuracy": _accuracy(accuracy, 898),
                "search_accuracy": _accuracy(accuracy + toy.random.gauss(0, 0.001), 899),
                "feasible": not violations,
                "violations": violations,
                "held": True,
                "layers": schemes,
            }

    ids = list(points)
    front = front_of(points)
    finalists = {*uniform, *front, *ids[4:8]}
    points = {id_: point for id_, point in points.items() if id_ in finalists}
    feasible = [id_ for id_ in front if points[id_]["feasible"]]
    nearest = {} if feasible else {"latency": front[0], "accuracy": max(front, key=lambda i: _value(points[i]))}
    data = {
        "schema_version": 1,
        "name": name,
        "created": "2026-11-20T12:00:00+00:00",
        "complete": True,
        "stopped": None,
        "model": {
            "source": "bitfront.experiments.digits:workload",
            "fingerprint": "3f0c9a" + "0" * 58,
            "parameters": sum(toy.parameters.values()),
            "layers": [
                {
                    "name": layer,
                    "op": "Gemm" if layer == "fc" else "Conv",
                    "parameters": toy.parameters[layer],
                    "group": layer,
                }
                for layer in toy.layers
            ],
        },
        "backend": {
            "name": "ort-cpu",
            "dialect": "ort-cpu",
            "device": {
                "device": "Example Processor 9000",
                "cores": 2,
                "instructions": ["avx2", "avx512_vnni"],
                "system": "Linux x86_64",
                "runtime": "onnxruntime 1.31.1",
                "python": "3.11.9",
            },
        },
        "settings": {
            "threads": 1,
            "batch_size": 1,
            "seed": 0,
            "trials": trials,
            "precisions": ["fp32", "fp16", "int8", "int4"],
            "metric": "top1",
            "calibration": {"method": "minmax", "percentile": 99.99, "samples": 512},
            "holdout_samples": 898,
            "search_samples": 899,
            "command": "search --budget-ms 5 --min-acc 0.75",
        },
        "budget": budget.to_json(),
        "reference": "fp32",
        "given": given_json(points["fp32"]),
        "baselines": list(uniform),
        "front": front,
        "recommended": max(feasible, key=lambda id_: _value(points[id_])) if feasible else None,
        "nearest": nearest,
        "points": points,
        "time_split_s": {
            "inference": 51.3,
            "compilation": 9.8,
            "solver": 1.2,
            "calibration": 6.4,
            "lowering": 3.1,
            "other": 1.9,
            "total": 73.7,
        },
    }
    return data, rows


def given_json(point: dict[str, Any], **other: Any) -> dict[str, Any]:
    """What ``measurement.json`` says of a given network that measures as a point does."""
    measured = ("size_bytes", "latency", "search_latency", "accuracy", "search_accuracy")
    return {**{name: point[name] for name in measured}, "refused": "", **other}


def front_of(points: dict[str, dict[str, Any]]) -> list[str]:
    """Ids of the Pareto-optimal points, fastest first."""
    objectives = [
        Objectives(accuracy=_value(point), latency_ms=point["latency"]["median_ms"], size_bytes=point["size_bytes"])
        for point in points.values()
    ]
    ids = list(points)
    front = [ids[index] for index in pareto_front(objectives)]
    return sorted(front, key=lambda id_: float(points[id_]["latency"]["median_ms"]))


def _value(point: dict[str, Any]) -> float:
    value: float = point["accuracy"]["value"]
    return value


def sensitivity_rows(layers: list[str], seed: int = 3) -> list[dict[str, Any]]:
    """Rows of ``sensitivity.csv``: four schemes a group, one of them dropped in one group."""
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for index, layer in enumerate(layers):
        weight = draw.lognormvariate(0, 0.8) * (5 if index == 0 else 1)
        for scheme in SCHEMES:
            alone = DAMAGE[scheme] * weight
            dropped = "worse than int8:mse and no smaller" if (index, scheme) == (2, "int4:gptq") else ""
            rows.append(
                {
                    "group": layer,
                    "choice": scheme,
                    "alone": alone,
                    "restored": alone * draw.uniform(-0.1, 1.2),
                    "loss": "" if dropped else alone,
                    "dropped": dropped,
                }
            )
    return rows


def write_run(folder: Path, data: dict[str, Any], trials: list[dict[str, Any]]) -> Path:
    """Write a run folder; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measurement.json").write_text(json.dumps(data))
    _write_csv(folder / "trials.csv", trials)
    _write_csv(folder / "sensitivity.csv", sensitivity_rows([layer["name"] for layer in data["model"]["layers"]]))
    return folder


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def feasible_run(folder: Path) -> Path:
    """A search whose budgets were met."""
    return write_run(folder, *measurement(budget=Constraints(latency_ms=5.0, min_accuracy=0.75, size_bytes=150_000)))


def unstable_run(folder: Path) -> Path:
    """As ``feasible_run``, but INT8, within every limit, was timed otherwise in a fresh process."""
    data, rows = measurement(budget=Constraints(latency_ms=5.0, min_accuracy=0.75, size_bytes=150_000))
    data = copy.deepcopy(data)
    data["points"]["int8"].update(held=False, feasible=True, violations=[])
    data["front"] = [id_ for id_ in data["front"] if id_ != "int8"]
    return write_run(folder, data, rows)


def infeasible_run(folder: Path) -> Path:
    """A search whose budgets nothing meets."""
    return write_run(folder, *measurement(budget=Constraints(latency_ms=1.0, max_drop=0.001)))


def interrupted_run(folder: Path) -> Path:
    """A search stopped by Ctrl-C before the finalists: two points, measured by the search alone, and no front."""
    data, rows = measurement(budget=Constraints(latency_ms=5.0, min_accuracy=0.96))
    data = copy.deepcopy(data)
    data.update(complete=False, stopped="interrupted", front=[], recommended=None, nearest={})
    data["points"] = {id_: data["points"][id_] for id_ in ("fp32", "int8")}
    for point in (*data["points"].values(), data["given"]):
        point.update(latency=None, accuracy=None)
    for point in data["points"].values():
        point.update(held=None)
    return write_run(folder, data, rows[:9])


def early_run(folder: Path) -> Path:
    """A search stopped before anything was measured: no points, no tables."""
    data, _ = measurement(budget=Constraints(latency_ms=5.0))
    data.update(complete=False, stopped="interrupted", front=[], recommended=None, nearest={}, points={})
    data["given"].update(latency=None, search_latency=None, accuracy=None, search_accuracy=None)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "measurement.json").write_text(json.dumps(data))
    return folder
