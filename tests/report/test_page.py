from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import plotly.offline
import pytest

from bitfront.core import OutputError, Scheme
from bitfront.report import html
from bitfront.report.front_plot import draw_front
from bitfront.report.html import facts, page
from bitfront.report.plots import draw_heatmap, draw_sensitivity, draw_time
from bitfront.report.render import render, render_sensitivity
from bitfront.report.results import RunResults
from bitfront.report.rows import Score
from bitfront.report.view_models import Cost, front_info, heatmap_info, sensitivity_info, time_info
from tests.report import synthetic, synthetic_passes

RUNS = {
    "feasible": synthetic.feasible_run,
    "infeasible": synthetic.infeasible_run,
    "interrupted": synthetic.interrupted_run,
    "early": synthetic.early_run,
    "passes": synthetic_passes.passes_run,
}
PLOTS = ["front-latency", "front-size", "precisions", "sensitivity", "time"]
PLOTS_OF = {
    "early": ["time"],
    "passes": ["front-latency", "front-size", "kept", "precisions", "sensitivity", "sparsity", "time"],
}
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Elements(HTMLParser):
    """Collects the tags with their attributes, and the page's own text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def own_part(text: str) -> str:
    """The page without plotly.js, which is inlined once."""
    library = plotly.offline.get_plotlyjs()
    assert text.count(library) == 1
    return text.replace(library, "")


def elements(text: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(text)
    return parser.tags


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Kind of run → its page without plotly.js."""
    made = {name: render(make(tmp_path_factory.mktemp(name))) for name, make in RUNS.items()}
    return {name: own_part(path.read_text(encoding="utf-8")) for name, path in made.items()}


@pytest.mark.parametrize("name", RUNS)
def test_the_page_is_self_contained(pages: dict[str, str], name: str) -> None:
    """Nothing is loaded from anywhere: no address but those of the run's own files, and a policy that forbids it."""
    text = pages[name]
    tags = elements(text)
    for tag, attributes in tags:
        for key in ("src", "href"):
            address = attributes.get(key) or ""
            assert address.startswith("./") or address in ("", "data:,"), f"{tag} loads {address}"
        assert not [key for key in attributes if key.startswith("on")]
    assert not re.search(r"https?:|@import|url\(", text)
    policies = [a["content"] for t, a in tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert (policies[0] or "").startswith("default-src 'none';")
    allowed = dict(part.split(" ", 1) for part in (policies[0] or "").split("; "))
    assert {source for sources in allowed.values() for source in sources.split()} <= {
        "'none'", "'unsafe-inline'", "data:", "blob:",
    }  # fmt: skip
    assert allowed["form-action"] == allowed["base-uri"] == "'none'"


def ways_out(text: str) -> list[str]:
    """What of a page without plotly.js could carry its data away: forms, frames, far addresses, plotly's own server."""
    found = [
        tag for tag, _ in elements(text) if tag in ("form", "iframe", "object", "embed", "base", "frame", "applet")
    ]
    for tag, attributes in elements(text):
        refresh = (attributes.get("http-equiv") or "").lower() == "refresh"
        addresses = [attributes.get(key) or "" for key in ("src", "href", "action", "srcset", "ping", "formaction")]
        found += [
            f"{tag} {address}" for address in addresses if re.match(r"\s*([a-z][\w+.-]*:|//)(?!,$)", address, re.I)
        ]
        found += [f"{tag} refresh"] if refresh else []
    for call in re.findall(r"Plotly\.newPlot\([^;]*;", text):
        for setting in ("showSendToCloud: false", 'plotlyServerURL: ""', "showEditInChartStudio: false"):
            found += [] if setting in call else [f"a chart without {setting}"]
    return found


@pytest.mark.parametrize("name", RUNS)
def test_no_page_holds_a_way_out(pages: dict[str, str], name: str) -> None:
    """A report sends nothing, and no click on it does."""
    assert "Plotly.newPlot(" in pages[name]
    assert ways_out(pages[name]) == []


@pytest.mark.parametrize(
    "planted",
    [
        '<form action="x">',
        '<a href="https://h">',
        '<img src="//h/x">',
        '<meta http-equiv="refresh" content="0;url=x">',
        "Plotly.newPlot(a, b);",
    ],
)
def test_a_planted_way_out_is_found(pages: dict[str, str], planted: str) -> None:
    """The check sees each kind."""
    assert ways_out(pages["feasible"] + planted) != []


def test_every_page_is_made_alike(tmp_path: Path) -> None:
    """The page of the sensitivities alone has the policy and no way out either, and shows names literally."""
    score = Score(
        group=EVIL, scheme=Scheme.parse("int8:mse"), single_layer=0.1, leave_one_out=0.1, loss=0.1, dropped=EVIL
    )
    render_sensitivity([score], tmp_path / "sensitivity.html")
    text = own_part((tmp_path / "sensitivity.html").read_text(encoding="utf-8"))
    assert ways_out(text) == []
    assert "default-src &#39;none&#39;" in text
    assert EVIL not in text
    assert raw_markup(text) == []


def raw_markup(text: str) -> list[str]:
    """Texts of a page's plots that plotly would read as markup, our own tags aside, or that hold control characters."""
    found: list[str] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, str) and (
            re.search(r"<(?!/?b>|br>|/?extra>)", value) or {"\x1b", "\u202e"} & set(value)
        ):
            found.append(value)

    for spec in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text):
        walk(json.loads(spec))
    return found


@pytest.mark.parametrize("name", RUNS)
def test_every_plot_has_a_place_and_a_readable_spec(pages: dict[str, str], name: str) -> None:
    """Each spec is JSON with data and layout, for an element that is there."""
    text = pages[name]
    specs = re.findall(r'<script type="application/json" data-plot="([a-z-]+)">(.*?)</script>', text)
    assert [id_ for id_, _ in specs] == PLOTS_OF.get(name, PLOTS)
    for id_, spec in specs:
        assert f'<div class="plot" id="{id_}"></div>' in text
        assert set(json.loads(spec)) >= {"data", "layout"}


def test_the_page_says_what_was_found(tmp_path: Path) -> None:
    """RunSummary, budgets, device, conventions and command are there to read."""
    text = render(synthetic.feasible_run(tmp_path)).read_text(encoding="utf-8")
    data = json.loads((tmp_path / "measurement.json").read_text())
    assert f"<h1>{data['recommended']} meets every limit: " in text
    for part in (
        "latency ≤ 5.00 ms",
        "accuracy ≥ 75.00 %",
        "size ≤ 150 kB",
        "Example Processor 9000",
        "1 thread, batch",
    ):
        assert part in text
    for part in ("search --budget-ms 5 --min-acc 0.75", "timed again in a fresh process", "on samples that the search"):
        assert part in text
    assert f'href="./models/{data["recommended"]}.onnx"' in text


def test_a_baseline_that_was_not_reproduced_is_not_called_beaten(tmp_path: Path) -> None:
    """Being off the front has two reasons; the table's note names the second where there is one."""
    beaten = own_part(page(RunResults.load(synthetic.feasible_run(tmp_path / "beaten"))))
    assert "was not reproduced" not in beaten
    text = own_part(page(RunResults.load(synthetic.unstable_run(tmp_path / "unstable"))))
    assert "or the baseline’s latency was not reproduced" in text
    assert "latency not reproduced</td>" in text


def test_paper_shows_whole_tables() -> None:
    """A table that scrolls on a screen would be cut in print; links to files are of no use there."""
    style = Path(html.__file__).with_name("page.css").read_text(encoding="utf-8")
    printed = style.split("@media print")[1]
    assert ".wide { overflow: visible; }" in printed
    assert ".points th.files, .points td.files { display: none; }" in printed


def test_a_baseline_where_the_recommended_point_is_has_its_label_below(tmp_path: Path) -> None:
    """Two labels above one spot would lie upon each other."""
    info = front_info(RunResults.load(synthetic.feasible_run(tmp_path)), Cost.SIZE)
    for spot in info.baselines:
        figure = draw_front(replace(info, recommended=replace(spot, label="p05")))
        (trace,) = [trace for trace in figure.data if trace.name == "baselines"]
        assert dict(zip(trace.text, trace.textposition, strict=True))[spot.label] == "bottom center"


def test_the_page_of_an_interrupted_run_claims_no_more_than_it_knows(pages: dict[str, str]) -> None:
    """Without finalists it says that the search's own numbers are shown."""
    text = pages["interrupted"]
    assert "Stopped before a point could be recommended" in text
    assert "the search’s own numbers are shown" in text
    assert "No front yet" in text


def test_the_page_tells_the_networks(pages: dict[str, str]) -> None:
    """What each point's network lost, how it was trained and the accuracy recovered; the recommended one's is open."""
    text = pages["passes"]
    for part in (
        "<h2>Model variants</h2>",
        "10.20 → 95.80 %",
        "9 model variants made",
        "<details open>",
        "32 → 16",
        "trained on",
    ):
        assert part in text
    assert 'class="points dense"' in text
    assert 'href="./networks/0123456789abcdef.onnx"' in text
    assert "Without a column, having none of these layers: p66." in text
    for part in ("Model variants", "<details", "dense", "accuracy recovered", "training"):
        assert part not in re.sub(r"<style>.*?</style>", "", pages["feasible"], flags=re.DOTALL)


@pytest.mark.parametrize("make", [synthetic.feasible_run, synthetic_passes.passes_run])
def test_names_cannot_become_markup(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    """A hostile name of a layer, network or workload adds no element to the page."""
    folder = make(tmp_path)
    plain = elements(own_part(page(RunResults.load(folder))))
    path = folder / "measurement.json"
    text = path.read_text()
    for name in ("conv1", "digits", "Example Processor 9000", "student small", "layer2.4", "pruned 0.81", "top1"):
        text = text.replace(name, EVIL + r"\u001b[31m\u202e")
    path.write_text(text.replace('"inference":', f'"{EVIL}": 1.0, "inference":'))
    hostile = own_part(page(RunResults.load(folder)))
    assert raw_markup(hostile) == []
    assert raw_markup(hostile.replace("&lt;img", r"\u003cimg")) != []
    assert not set("\x1b\u202e") & set(hostile)
    assert [tag for tag, _ in elements(hostile)] == [tag for tag, _ in plain]
    # The check sees a page that does not escape.
    assert [tag for tag, _ in elements(hostile.replace("&lt;", "<"))] != [tag for tag, _ in plain]


def test_facts_leave_out_what_is_unknown(tmp_path: Path) -> None:
    """Lists are joined, missing settings have no row."""
    folder = synthetic.feasible_run(tmp_path)
    data = json.loads((folder / "measurement.json").read_text())
    del data["settings"]["seed"]
    data["backend"]["device"]["instructions"] = []
    (folder / "measurement.json").write_text(json.dumps(data))
    rows = dict(facts(RunResults.load(folder)))
    assert "Seed" not in rows
    assert "Instructions" not in rows
    assert rows["Precisions"] == "fp32, fp16, int8, int4"
    assert rows["Calibration"] == "method minmax, percentile 99.99, samples 512"


def test_rendering_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """The page depends on the saved results alone."""
    folder = synthetic.feasible_run(tmp_path)
    first = render(folder).read_bytes()
    assert render(folder).read_bytes() == first


def test_pareto_csv_holds_the_front(tmp_path: Path) -> None:
    """One row a front point, fastest first, numbers in full precision."""
    folder = synthetic.feasible_run(tmp_path)
    data = json.loads((folder / "measurement.json").read_text())
    render(folder)
    frame = pd.read_csv(folder / "pareto.csv")
    assert list(frame["id"]) == data["front"]
    assert list(frame.loc[frame["recommended"], "id"]) == [data["recommended"]]
    first = data["points"][data["front"][0]]
    assert frame["latency_ms"][0] == first["latency"]["median_ms"]
    assert frame["size_ratio"][0] == first["size_bytes"] / data["points"]["fp32"]["size_bytes"]
    assert frame["config"][0] == first["config"]


def test_pareto_csv_without_a_front_has_its_columns(tmp_path: Path) -> None:
    """Scripts that read it find the header."""
    render(synthetic.early_run(tmp_path))
    header = "id,recommended,origin,accuracy,accuracy_ci_low,accuracy_ci_high,latency_ms,latency_p90_ms,ratio,"
    assert (tmp_path / "pareto.csv").read_text() == header + (
        "size_bytes,size_ratio,feasible,config,model,accuracy_change,accuracy_change_ci_low,accuracy_change_ci_high,"
        "samples_better,samples_worse,samples\n"
    )


def test_an_unwritable_folder_is_an_output_error(tmp_path: Path) -> None:
    """What stands in the way is named."""
    folder = synthetic.feasible_run(tmp_path)
    (folder / "report.html").mkdir()
    with pytest.raises(OutputError, match=r"cannot write '.*report\.html'"):
        render(folder)


def test_plots_draw_what_was_computed(tmp_path: Path) -> None:
    """Marks, step_line, budgets, frame and bars stand in the figures."""
    results = RunResults.load(synthetic.feasible_run(tmp_path))
    info = front_info(results, Cost.SIZE)
    figure = draw_front(info)
    traces = {trace.name: trace for trace in figure.data}
    assert list(traces["Pareto front"].x) == [m.x for m in info.front]
    assert list(traces["Pareto front"].hovertext) == [m.tooltip for m in info.front]
    (line,) = (trace for trace in figure.data if trace.mode == "lines")
    assert list(zip(line.x, line.y, strict=True)) == list(info.step_line)
    lines = [shape for shape in figure.layout.shapes if shape.type == "line"]
    assert [shape.x0 for shape in lines] == [150.0]  # 75 % lies far below every point and is said in the title
    assert figure.layout.yaxis.title.text == "top1 (%), limit 75 is below"

    heat = heatmap_info(results)
    (frame,) = draw_heatmap(heat).layout.shapes
    assert heat.recommended is not None
    assert (frame.x0 + frame.x1) / 2 == heat.recommended
    assert len(draw_sensitivity(sensitivity_info(results.scores)).data) == 6
    assert [bar.x[0] for bar in draw_time(time_info(results)).data] == [51.3, 9.8, 1.2, 6.4, 3.1, 1.9]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium to run the page")
def test_a_browser_draws_every_plot(tmp_path: Path) -> None:
    """The page's script runs to its end under its own policy."""
    path = render(synthetic_passes.passes_run(tmp_path / "run"))
    options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    options += " --disable-component-update --disable-sync --enable-logging=stderr"
    options += " --virtual-time-budget=4000 --dump-dom"
    command = ["chromium", *options.split(), f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert complaints == []
    for id_ in PLOTS_OF["passes"]:
        assert re.search(rf'id="{id_}"[^>]*>\s*<div class="plot-container', done.stdout), id_
