"""Tooltips of the plots' marks: escaped text in lines.

Plotly reads a subset of HTML in labels and tooltip text, and layer names are the user's, so everything is escaped here.
"""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping

from bitfront.core import AccuracyStats, LatencyStats, MetricInfo, Precision, Scheme, formatting
from bitfront.core.display import visible
from bitfront.core.measurement_file import ReportedLayer
from bitfront.core.point import Point
from bitfront.core.scheme_text import method_word
from bitfront.core.variant_info import PrunedGroup, VariantInfo
from bitfront.report import variant_format
from bitfront.report.origins import origin_text, state_text
from bitfront.report.results import RunResults
from bitfront.report.rows import Score, SparsityScore, Trial
from bitfront.report.tables import NOT_REPRODUCED, size_ratio, zip_bytes


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


def layer_tooltip(layer: ReportedLayer, point: Point) -> str:
    """The tooltip of one layer in one point: its scheme, or that the point's network has no such layer."""
    scheme = point.layers.get(layer.name)
    return _lines(
        f"<b>{escape(layer.name)}</b> in {escape(point.id)}",
        "not in this network" if scheme is None else scheme_words(scheme),
        f"{escape(layer.op)}, {layer.parameters:,} weights",
        f"decided with group {escape(layer.group)}" if layer.group != layer.name else "",
    )


def _lines(*lines: str) -> str:
    return "<br>".join(line for line in lines if line)


def point_tooltip(results: RunResults, point: Point) -> str:
    """A point's tooltip: what was measured of it and what it is made of."""
    share, zipped = size_ratio(results, point), zip_bytes(point)
    return _lines(
        f"<b>{escape(point.id)}</b> ({escape(origin_text(point.origin))})",
        _accuracy_words(point.shown_accuracy, results.metric),
        _change_words(results, point),
        _latency_words(point.shown_latency, results.versus),
        "size "
        + formatting.size(point.size_bytes)
        + (f", {formatting.ratio(share)} {results.versus}" if share is not None else ""),
        "" if zipped is None else f"zip size {formatting.size(zipped)}",
        escape(point.text),
        *_network_lines(point.network, results.metric),
        *(escape(f"misses {violation}") for violation in point.violations),
        "" if point.latency_reproduced is not False else f"{NOT_REPRODUCED} in a fresh process",
    )


def _network_lines(network: VariantInfo | None, metric: MetricInfo) -> tuple[str, ...]:
    if network is None:
        return ()
    return (f"model variant {escape(network.label)}", *variant_format.statements(network, metric))


def _accuracy_words(stats: AccuracyStats | None, metric: MetricInfo) -> str:
    if stats is None:
        return ""
    value, low, high = (formatting.metric_value(v, metric) for v in (stats.value, stats.ci_low, stats.ci_high))
    return f"{metric.quantity} {value} [{low}, {high}], {stats.samples:,} samples"


def _change_words(results: RunResults, point: Point) -> str:
    change = point.shown_change
    if change is None or point.id == results.reference:
        return ""
    told = formatting.verdict(change, results.metric) or f"{change.better:,} better, {change.worse:,} worse"
    return f"{formatting.paired_change(change, results.metric)} {results.versus}, {told}"


def _latency_words(stats: LatencyStats | None, versus: str) -> str:
    if stats is None:
        return ""
    median, p90 = formatting.latency(stats.median_ms), formatting.latency(stats.p90_ms)
    return f"latency {median} median, {p90} p90, {formatting.ratio(stats.ratio)} {versus}"


def trial_tooltip(results: RunResults, trial: Trial) -> str:
    """A trial's tooltip, as the search measured it."""
    samples = f" on {trial.accuracy_samples:,} samples" if trial.accuracy_samples is not None else ""
    share = f", {formatting.ratio(trial.ratio)} {results.versus}" if trial.ratio is not None else ""
    p90 = f", {formatting.latency(trial.latency_p90_ms)} p90" if trial.latency_p90_ms is not None else ""
    return _lines(
        f"<b>trial {trial.number}</b> ({escape(f'{origin_text(trial.origin)}, {state_text(trial.state)}')})",
        f"{results.metric.quantity} {formatting.metric_value(trial.accuracy, results.metric)}{samples}",
        f"latency {formatting.latency(trial.latency_ms)} median{p90}{share}",
        f"size {formatting.size(trial.size_bytes)}",
        schemes_text(trial.schemes),
        f"model variant {escape(trial.variant[:8])}" if trial.variant else "",
        variant_format.pruned_groups([share == 1 for share in trial.pruning.values() if share > 0]),
        escape(trial.reason),
    )


def score_tooltip(score: Score, context: str, value: float) -> str:
    """A sensitivity score's tooltip, as measured."""
    return _lines(
        f"<b>{escape(score.group)}</b> {escape(score.scheme.text)}",
        f"{context}: {formatting.number(value)}",
        f"not offered: {escape(score.dropped)}" if score.dropped else "",
    )


def sparsity_tooltip(score: SparsityScore) -> str:
    """The tooltip of one prune group pruned by itself to one sparsity, as measured."""
    return _lines(
        f"<b>{escape(score.group)}</b> {score.sparsity:.0%} pruned",
        f"{score.kept} of {score.channels} channels kept",
        f"divergence: {formatting.number(score.loss)}",
        "" if math.isnan(score.trained) else f"after a short training: {formatting.number(score.trained)}",
        f"not offered: {escape(score.dropped)}" if score.dropped else "",
    )


def kept_tooltip(point: Point, group: PrunedGroup | None, whole: PrunedGroup) -> str:
    """The tooltip of one prune group in one point's network; ``group`` is None where it was left ``whole``."""
    if whole.branch:
        words = "branch kept" if group is None else "branch removed"
    else:
        kept = whole.channels if group is None else group.kept
        words = f"{kept} of {whole.channels} channels kept"
    return _lines(f"<b>{escape(whole.name)}</b> in {escape(point.id)}", words)
