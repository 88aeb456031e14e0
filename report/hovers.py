"""What a plot says when the pointer rests on a mark: escaped text in lines.

Plotly reads a subset of HTML in labels and hover text, and layer names are the user's, so everything is escaped here.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping

from bitfront.core import AccuracyStats, LatencyStats, Precision, Scheme
from bitfront.core.display import visible
from bitfront.core.scheme_text import method_word
from bitfront.report import network_words, wording
from bitfront.report.network import NetworkInfo, PrunedGroup
from bitfront.report.results import Point, ReportedLayer, RunResults
from bitfront.report.rows import Score, SparsityScore, Trial
from bitfront.report.tables import NOT_REPRODUCED, deflated_bytes, size_ratio


def escape(text: str) -> str:
    """``text`` as plotly shows it literally, control characters as escapes."""
    return html.escape(visible(text), quote=False)


def scheme_words(scheme: Scheme) -> str:
    """A scheme in full: ``int4 weights (gptq), 8-bit activations``."""
    if not scheme.precision.is_integer:
        return (
            "fp16 weights, fp32 arithmetic unless the runtime has fp16"
            if scheme.precision is Precision.FP16
            else "fp32"
        )
    group = scheme.weights.group_size
    block = f", one scale per {group} weights" if group is not None else ""
    activations = "8-bit activations" if scheme.activations.dtype is not None else "floating activations"
    return f"{scheme.precision.value} weights ({method_word(scheme.weights)}{block}), {activations}"


def schemes_text(schemes: Mapping[str, Scheme]) -> str:
    """Schemes in short: ``int8 ×18, int4 ×2``, widest precision first."""
    counts = Counter(scheme.precision for scheme in schemes.values())
    return ", ".join(f"{precision.value} ×{counts[precision]}" for precision in Precision if counts[precision])


def layer_hover(layer: ReportedLayer, point: Point) -> str:
    """One layer's scheme in one point, or that its network has no such layer."""
    scheme = point.layers.get(layer.name)
    return _lines(
        f"<b>{escape(layer.name)}</b> in {escape(point.id)}",
        "not in this network" if scheme is None else scheme_words(scheme),
        f"{escape(layer.op)}, {layer.parameters:,} weights",
        f"decided with group {escape(layer.group)}" if layer.group != layer.name else "",
    )


def _lines(*lines: str) -> str:
    return "<br>".join(line for line in lines if line)


def point_hover(results: RunResults, point: Point) -> str:
    """One kept point: what it measured and what it is made of."""
    share, deflated = size_ratio(results, point), deflated_bytes(point)
    return _lines(
        f"<b>{escape(point.id)}</b> ({escape(point.origin)})",
        _accuracy_words(point.shown_accuracy, results.metric),
        _latency_words(point.shown_latency, results.versus),
        "size "
        + wording.size(point.size_bytes)
        + (f", {wording.ratio(share)} {results.versus}" if share is not None else ""),
        "" if deflated is None else f"compressed {wording.size(deflated)}",
        escape(point.text),
        *_network_lines(point.network, results.metric),
        *(escape(f"misses {violation}") for violation in point.violations),
        "" if point.held is not False else f"{NOT_REPRODUCED} in a fresh process",
    )


def _network_lines(network: NetworkInfo | None, metric: str) -> tuple[str, ...]:
    if network is None:
        return ()
    return (f"network {escape(network.label)}", *network_words.statements(network, metric))


def _accuracy_words(stats: AccuracyStats | None, metric: str) -> str:
    if stats is None:
        return ""
    value, low, high = (wording.accuracy(v, metric) for v in (stats.value, stats.ci_low, stats.ci_high))
    return f"accuracy {value} [{low}, {high}], {stats.samples:,} samples"


def _latency_words(stats: LatencyStats | None, versus: str) -> str:
    if stats is None:
        return ""
    median, p90 = wording.latency(stats.median_ms), wording.latency(stats.p90_ms)
    return f"latency {median} median, {p90} p90, {wording.ratio(stats.ratio)} {versus}"


def trial_hover(results: RunResults, trial: Trial) -> str:
    """One candidate as the search saw it."""
    samples = f" on {trial.accuracy_samples:,} samples" if trial.accuracy_samples is not None else ""
    share = f", {wording.ratio(trial.ratio)} {results.versus}" if trial.ratio is not None else ""
    p90 = f", {wording.latency(trial.latency_p90_ms)} p90" if trial.latency_p90_ms is not None else ""
    return _lines(
        f"<b>trial {trial.number}</b> ({escape(f'{trial.origin}, {trial.state}')})",
        f"accuracy {wording.accuracy(trial.accuracy, results.metric)}{samples}",
        f"latency {wording.latency(trial.latency_ms)} median{p90}{share}",
        f"size {wording.size(trial.size_bytes)}",
        schemes_text(trial.schemes),
        f"network {escape(trial.network[:8])}" if trial.network else "",
        network_words.losses([share == 1 for share in trial.pruning.values() if share > 0]),
        escape(trial.reason),
    )


def score_hover(score: Score, context: str, value: float) -> str:
    """One sensitivity score, as measured."""
    return _lines(
        f"<b>{escape(score.group)}</b> {escape(score.scheme.text)}",
        f"{context}: {wording.number(value)}",
        f"left out: {escape(score.dropped)}" if score.dropped else "",
    )


def sparsity_hover(score: SparsityScore) -> str:
    """One prune group alone at one level, as measured."""
    return _lines(
        f"<b>{escape(score.group)}</b> {score.sparsity:.0%} pruned",
        f"{score.kept} of {score.channels} channels stay",
        f"divergence: {wording.number(score.loss)}",
        "" if math.isnan(score.trained) else f"after a short training: {wording.number(score.trained)}",
        f"left out: {escape(score.dropped)}" if score.dropped else "",
    )


def kept_hover(point: Point, group: PrunedGroup | None, whole: PrunedGroup) -> str:
    """One prune group in one point's network; ``group`` is None where it stayed ``whole``."""
    if whole.branch:
        words = "branch stays" if group is None else "branch removed"
    else:
        kept = whole.channels if group is None else group.kept
        words = f"{kept} of {whole.channels} channels stay"
    return _lines(f"<b>{escape(whole.name)}</b> in {escape(point.id)}", words)
