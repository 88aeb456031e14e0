"""The page: one self-contained HTML file that works offline, in light, in dark and on paper.

plotly.js is inlined once. The page's own content security policy forbids every request, so it cannot fetch anything
even where a later change tries to; what a policy cannot forbid, plotly's button that opens a server with a chart's
data, is switched off in ``page.js``. Jinja escapes what it is given, but for what the template marks safe: our style
and script, plotly.js, and plot data, which is JSON without ``<``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import quote

import jinja2
import plotly.graph_objects as go
import plotly.offline
from markupsafe import Markup

from bitfront.core import formatting
from bitfront.core.display import visible_lines
from bitfront.core.given_network import AS_GIVEN, GIVEN_ID
from bitfront.report import front_plot, plots, pruning_plots
from bitfront.report.pruning import kept_info, sparsity_info
from bitfront.report.results import RunResults
from bitfront.report.summary import limit_texts, summarise_run
from bitfront.report.tables import NETWORK_COLUMN, NETWORK_COLUMNS, TableRow, columns, table
from bitfront.report.timing_notes import LATENCY_MEANS, REPRODUCED
from bitfront.report.variant_details import halving_rows, training_text, variant_details
from bitfront.report.view_models import Cost, front_info, heatmap_info, sensitivity_info, time_info, trial_states

CONTENT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; "
    "form-action 'none'; base-uri 'none'"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A figure and where it stands: ``id`` is unique on the page, ``spec`` its JSON for plotly.js."""

    id: str
    title: str
    note: str
    spec: str


def page(results: RunResults) -> str:
    """The whole page as text."""
    rows = table(results)
    return fill(
        "page.html.j2",
        results=results,
        summary=summarise_run(results),
        limits=limit_texts(results),
        columns=columns(results),
        network_column=NETWORK_COLUMN,
        network_columns=NETWORK_COLUMNS,
        rows=rows,
        timed_again=all(results.points[row.id].latency and results.points[row.id].accuracy for row in rows),
        links=_links(results, rows),
        fronts=_front_plots(results),
        networks=[(network, network.file and "./" + quote(network.file)) for network in variant_details(results)],
        training=training_text(results.train) if results.train else "",
        halving=halving_rows(results.train, results.metric) if results.train else (),
        kept=_kept_plot(results),
        heatmap=_heatmap_plot(results),
        sensitivity=_sensitivity_plot(results),
        sparsity=_sparsity_plot(results),
        time=_time_plot(results),
        trial_states=trial_states(results),
        facts=facts(results),
        as_given=GIVEN_ID,
        unsure=any(
            row.baseline and not row.on_front and results.points[row.id].latency_reproduced is False for row in rows
        ),
        paired=any(point.shown_change for point in results.points.values()),
        compared_with="the network as given" if results.versus == GIVEN_ID else "the FP32 network",
    )


def plot_page(title: str, figure: go.Figure, notices: Sequence[str] = ()) -> str:
    """A page of one figure, with what has to be known first above it."""
    return fill("plot_page.html.j2", title=title, plot=as_plot("plot", title, "", figure), notices=notices)


def fill(template: str, **values: Any) -> str:
    """A page from its template: ``values`` beside the style, the scripts and the policy that all pages have."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    folder = files("bitfront.report")
    shared = {
        "policy": CONTENT_POLICY,
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "script": (folder / "page.js").read_text(encoding="utf-8"),
        "plotly_js": plotly.offline.get_plotlyjs(),
    }
    return environment.from_string((folder / template).read_text(encoding="utf-8")).render(**shared, **values)


def _finalize(value: Any) -> Any:
    """Control and invisible characters of texts as escapes; what the template marks safe is left as it is."""
    return "\n".join(visible_lines(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def facts(results: RunResults) -> tuple[tuple[str, str], ...]:
    """Rows (name, value) of the environment table, to which the numbers are tied."""
    settings, device = results.settings, results.device
    rows = [
        ("Device", device.get("device")),
        ("Cores", device.get("cores")),
        ("Instructions", device.get("instructions")),
        ("System", device.get("system")),
        ("Runtime", device.get("runtime")),
        ("Python", device.get("python")),
        ("Backend", results.backend),
        ("Threads", settings.get("threads")),
        ("Batch size", settings.get("batch_size")),
        ("Metric", f"{results.metric.text}, {results.metric.direction} is better"),
        ("Held-out samples", settings.get("holdout_samples")),
        ("Search samples", settings.get("search_samples")),
        ("Calibration data", settings.get("data", {}).get("calibration", {}).get("text")),
        ("Evaluation data", settings.get("data", {}).get("evaluation", {}).get("text")),
        ("Latency measured on", settings.get("data", {}).get("timing", {}).get("text")),
        ("Latency", LATENCY_MEANS),
        ("Latency reproduced", REPRODUCED),
        ("Calibration", settings.get("calibration")),
        ("Precisions", settings.get("precisions")),
        ("Passes", settings.get("passes")),
        *((f"Not offered: {name}", why) for name, why in (settings.get("withheld") or {}).items()),
        ("Wanted within the limits", results.choice and results.choice.prefer.value),
        ("Accuracies told apart at", results.choice and f"a chance below {results.choice.significance:g}"),
        ("Trials asked for", settings.get("trials")),
        ("Seed", settings.get("seed")),
        ("Network", results.source),
        ("Compared with", _compared_with(results)),
        ("Fingerprint", results.fingerprint),
        ("Weights", f"{results.parameters:,} in {len(results.layers)} layers"),
        ("Started", results.created),
        ("Command", settings.get("command")),
    ]
    return tuple((name, _text(value)) for name, value in rows if value not in (None, "", [], (), {}))


def _compared_with(results: RunResults) -> str | None:
    """Network that ratios are to, and its size; None for an older run, which does not tell."""
    if results.given is None:
        return None
    what = "its FP32 form, which alone runs here" if results.given.refused else AS_GIVEN
    return f"{what}, {formatting.size(results.given.size_bytes)}"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    return ", ".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value)


def _links(results: RunResults, rows: tuple[TableRow, ...]) -> Mapping[str, tuple[tuple[str, str], ...]]:
    """Point id → (label, relative address) of its files; always below the page's own folder."""
    links = {}
    for row in rows:
        point = results.points[row.id]
        found = (("config", point.config), ("model", point.model), ("engine", point.engine))
        links[row.id] = tuple((label, "./" + quote(path)) for label, path in found if path)
    return links


def as_plot(id_: str, title: str, note: str, figure: go.Figure) -> Plot:
    """A figure for the page."""
    # Inside a script element only "<" could end it; in JSON it occurs in texts alone, where an escape means the same.
    spec = json.dumps(json.loads(figure.to_json())).replace("<", "\\u003c")
    return Plot(id=id_, title=title, note=note, spec=spec)


def _front_plots(results: RunResults) -> tuple[Plot, ...]:
    if not results.points and not results.trials:
        return ()
    return tuple(
        as_plot(
            f"front-{cost.value}",
            f"{results.metric.quantity.capitalize()} against {cost.value}",
            "",
            front_plot.draw_front(front_info(results, cost)),
        )
        for cost in Cost
    )


def _heatmap_plot(results: RunResults) -> Plot | None:
    info = heatmap_info(results)
    if not info.points or not info.layers:
        return None
    note = "Bits a weight takes in the file, per layer in network order; points from the fastest to the slowest."
    if any(precision is None for row in info.precisions for precision in row):
        note += " Empty where a pruned network has no such layer."
    if info.without_layers:
        note += f" Without a column, having none of these layers: {', '.join(info.without_layers)}."
    return as_plot("precisions", "Precision per layer", note, plots.draw_heatmap(info))


def _kept_plot(results: RunResults) -> Plot | None:
    info = kept_info(results)
    if not info.groups:
        return None
    note = (
        "Kept channels, per prune group and pruned point, from the fastest to the slowest; grey where the group was "
        "left whole, removed where a residual branch was."
    )
    return as_plot("kept", "What was pruned", note, pruning_plots.draw_kept(info))


def _sparsity_plot(results: RunResults) -> Plot | None:
    info = sparsity_info(results.sparsities)
    if not info.series:
        return None
    trained = any(series.trained for series in info.series)
    note = (
        "How far the outputs move from those of the whole network where this group alone is pruned, before any training"
        + ("; open marks are what a short training leaves, which the search goes by" if trained else "")
        + ". The lowest marks stand for zero or less; the pointer shows the value."
    )
    return as_plot("sparsity", "Sensitivity to pruning", note, pruning_plots.draw_sparsity(info))


def _sensitivity_plot(results: RunResults) -> Plot | None:
    info = sensitivity_info(results.scores)
    if not info.series:
        return None
    note = (
        "How far the outputs move from FP32's on calibration inputs. Single-layer: only this group is changed. "
        "Leave-one-out: everything else is at its lowest precision, and what this group adds is shown. The lowest "
        "marks stand for zero or less; the pointer shows the value."
    )
    return as_plot("sensitivity", "Sensitivity", note, plots.draw_sensitivity(info))


def _time_plot(results: RunResults) -> Plot | None:
    info = time_info(results)
    if not info.parts:
        return None
    work = "solver, calibration and training" if results.train else "solver and calibration"
    note = (
        f"{formatting.duration(info.total_s)} in all, {info.useful:.0%} of it in the runtime (inference and "
        f"compilation), {work}."
    )
    return as_plot("time", "Where the time went", note, plots.draw_time(info))
