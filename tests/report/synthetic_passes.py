"""A run folder of a search with pruning, distillation and quantisation-aware training; made-up numbers."""

from __future__ import annotations

import copy
import csv
import json
import random
from pathlib import Path
from typing import Any

from bitfront.core import AccuracyStats, Constraints, Scheme
from bitfront.core.training_info import RungInfo, TrainInfo
from bitfront.core.variant_info import PrunedGroup, StepInfo, VariantInfo
from bitfront.report.tooltips import schemes_text
from tests.report import synthetic

GROUPS = ("layer1.0.conv1", "layer1.1.conv1", "layer1.2.conv1", "layer2.3.conv1", "layer3.6.conv1", "layer3.7.conv1")
BRANCHES = ("layer2.4", "layer3.8")


def prune_network(levels: tuple[float, ...], branches: tuple[str, ...] = (), *, qat: bool = False) -> VariantInfo:
    """The given network with ``GROUPS`` narrowed by ``levels`` and ``branches`` gone, recovered by distillation."""
    narrowed = [
        PrunedGroup(name=name, branch=False, channels=32, kept=round(32 * (1 - level)))
        for name, level in zip(GROUPS, levels, strict=False)
        if level
    ]
    gone = [PrunedGroup(name=name, branch=True, channels=1, kept=0) for name in branches]
    share = 1 - 0.9 * (sum(levels) + len(branches)) / (len(GROUPS) + len(BRANCHES))
    steps = [
        StepInfo(name="prune", steps=0, seconds=1.4, loss=None),
        StepInfo(name="distill", steps=600, seconds=74.2, loss=0.0831),
    ]
    steps += [StepInfo(name="qat", steps=120, seconds=61.0, loss=0.0417)] if qat else []
    return VariantInfo(
        label="pruned",
        pruned=(*narrowed, *gone),
        steps=tuple(steps),
        macs=round(41_000_000 * share),
        parameters=round(270_000 * share * share),
        macs_share=share,
        parameters_share=share * share,
        train_s=sum(step.seconds for step in steps if step.steps),
        untrained_accuracy=0.974 - 0.9 * (1 - share),
        fp32_accuracy=0.974 - 0.02 * (1 - share),
        file=f"networks/{abs(hash_of(levels, branches)):016x}.onnx",
    )


def hash_of(levels: tuple[float, ...], branches: tuple[str, ...]) -> int:
    """A number that depends on the pruning alone."""
    return random.Random(repr((levels, branches))).getrandbits(60)


STUDENT = VariantInfo(
    label="student small",
    pruned=(),
    steps=(
        StepInfo(name="student", steps=0, seconds=0.1, loss=None),
        StepInfo(name="distill", steps=900, seconds=48.0, loss=0.21),
    ),
    macs=6_200_000,
    parameters=41_000,
    macs_share=0.15,
    parameters_share=0.152,
    train_s=48.0,
    untrained_accuracy=0.102,
    fp32_accuracy=0.958,
    file="networks/0123456789abcdef.onnx",
)
SPARSE = VariantInfo(
    label="2:4",
    pruned=(),
    steps=(
        StepInfo(name="sparse", steps=0, seconds=0.3, loss=None),
        StepInfo(name="distill", steps=300, seconds=41.0, loss=0.02),
    ),
    macs=41_000_000,
    parameters=270_000,
    macs_share=1.0,
    parameters_share=1.0,
    train_s=41.0,
    untrained_accuracy=0.951,
    fp32_accuracy=0.973,
)
NETWORKS = {
    "p61": prune_network((0.25, 0.25, 0.0, 0.25)),
    "p62": prune_network((0.5, 0.25, 0.5, 0.25, 0.5), BRANCHES[:1]),
    "p63": prune_network((0.5, 0.25, 0.5, 0.25, 0.5), BRANCHES[:1]),
    "p64": prune_network((0.5, 0.5, 0.5, 0.5, 0.5), BRANCHES[:1], qat=True),
    "p65": prune_network((0.75, 0.5, 0.75, 0.5, 0.75, 0.5), BRANCHES),
    "p66": STUDENT,
    "p67": SPARSE,
}
SCHEME = {"p61": "int8:mse", "p62": "int8:mse", "p63": "int4:gptq", "p64": "int4:gptq", "p67": "int8:mse"}
TRAIN = TrainInfo(
    budget_s=600.0,
    spent_s=421.0,
    networks=9,
    trained=5,
    promoted=3,
    history=tuple(
        RungInfo(network=f"pruned {share} ×", rung=rung, steps=60 * 3**rung, value=value + 0.02 * rung, kept=kept)
        for rung, rows in enumerate(
            (
                (("0.81", 0.961, True), ("0.62", 0.947, True), ("0.55", 0.901, False), ("0.31", 0.93, True)),
                (("0.81", 0.965, True), ("0.62", 0.951, True), ("0.31", 0.912, False)),
            )
        )
        for share, value, kept in rows
    ),
)


def made_point(id_: str, network: VariantInfo, sample: dict[str, Any]) -> dict[str, Any]:
    """A point of ``network``, after ``sample``, a point of the given network with the same schemes."""
    point = copy.deepcopy(sample)
    gone = tuple(group.name for group in network.pruned if group.branch)
    layers = {name: text for name, text in point["layers"].items() if not name.startswith(gone or "-")}
    if network is STUDENT:
        layers = dict.fromkeys(("stem", "body.0", "body.1", "head"), "int8:mse")
    for stats in (point["latency"], point["search_latency"]):
        for name in ("median_ms", "p90_ms", "ci_low_ms", "ci_high_ms", "ratio", "ratio_low", "ratio_high"):
            stats[name] *= 0.35 + 0.65 * network.macs_share
    accuracy = (network.fp32_accuracy or 0.0) - (
        0.004 if "int4" in point["text"] and not network.artifact_trained else 0.0005
    )
    stats = AccuracyStats(value=accuracy, ci_low=accuracy - 0.01, ci_high=accuracy + 0.01, samples=898).to_json()
    size = round(point["size_bytes"] * network.parameters_share)
    point.update(
        id=id_,
        origin="sampler",
        text=schemes_text({name: Scheme.parse(text) for name, text in layers.items()}),
        config=f"configs/{id_}.json",
        model=f"models/{id_}.onnx",
        size_bytes=size,
        compressed_bytes=round(size * (0.62 if network is SPARSE else 0.93)),
        accuracy=stats,
        search_accuracy=stats,
        feasible=True,
        violations=[],
        layers=layers,
        network=network.to_json(),
    )
    return point


def sparsity_rows(seed: int = 5) -> list[dict[str, Any]]:
    """Rows of ``sparsity.csv``: three levels a group, one a branch, one of them dropped."""
    draw = random.Random(seed)
    rows: list[dict[str, Any]] = []
    for group in (*GROUPS, *BRANCHES):
        weight = draw.lognormvariate(0, 0.8)
        branch = group in BRANCHES
        for level in (1.0,) if branch else (0.25, 0.5, 0.75):
            dropped = "not finite" if (group, level) == (GROUPS[1], 0.75) else ""
            rows.append(
                {
                    "group": group,
                    "sparsity": level,
                    "kept": 0 if branch else round(32 * (1 - level)),
                    "channels": 1 if branch else 32,
                    "loss": "" if dropped else 0.05 * weight * level**2,
                    "trained": "" if dropped else 0.02 * weight * level**2,
                    "dropped": dropped,
                }
            )
    return rows


def passes_run(folder: Path) -> Path:
    """A search whose best points are pruned, trained, sparse and small networks, beside the given one."""
    data, trials = synthetic.measurement(budget=Constraints(latency_ms=5.0, min_accuracy=0.95, size_bytes=150_000))
    points = data["points"]
    for number, (id_, network) in enumerate(NETWORKS.items(), start=len(trials)):
        sample = points[{"int4:gptq": "int4"}.get(SCHEME.get(id_, ""), "int8")]
        points[id_] = made_point(id_, network, sample)
        trials.append(
            {
                **trials[-1],
                "number": number,
                "origin": "sampler",
                "state": "complete",
                "latency_ms": points[id_]["latency"]["median_ms"],
                "size_bytes": points[id_]["size_bytes"],
                "accuracy": points[id_]["accuracy"]["value"],
                "accuracy_samples": 900,
                "reason": "",
                "network": "5f3a" * 16,
                "pruning": json.dumps({group.name: 1 - group.kept_fraction for group in network.pruned}),
            }
        )
    data["front"] = synthetic.front_of(points)
    data["recommended"] = "p62"
    data["train"] = TRAIN.to_json()
    data["settings"]["passes"] = ["prune", "distill", "sparse", "qat"]
    data["time_split_s"].update(training=421.0, total=data["time_split_s"]["total"] + 421.0)
    synthetic.write_run(folder, data, [{"network": "", "pruning": "{}", **row} for row in trials])
    with (folder / "sparsity.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(sparsity_rows()[0]))
        writer.writeheader()
        writer.writerows(sparsity_rows())
    return folder
