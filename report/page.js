(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  var plots = [];
  function theme(isDark) {
    var text = isDark ? "#d7dbe0" : "#1f2933", grid = isDark ? "#3a424d" : "#e3e7ec", line = isDark ? "#566070" : "#b8c0cc";
    return {
      "font.color": text, "xaxis.gridcolor": grid, "yaxis.gridcolor": grid, "xaxis.linecolor": line, "yaxis.linecolor": line,
      "hoverlabel.bgcolor": isDark ? "#20262e" : "#ffffff", "hoverlabel.bordercolor": line, "hoverlabel.font.color": text,
      "hoverlabel.align": "left", "legend.bgcolor": "rgba(0,0,0,0)"
    };
  }
  // On a narrow page the legend takes more lines: buttons go above it, and a flat plot keeps its height.
  function makeRoom(id, layout) {
    var room = 80;
    if (id !== "time" && !layout.updatemenus) { return; }
    layout.height += room;
    layout.margin.t += room;
    (layout.updatemenus || []).forEach(function (menu) { menu.pad = { b: room }; });
  }
  function apply(isDark) { plots.forEach(function (plot) { Plotly.relayout(plot, theme(isDark)); }); }
  document.querySelectorAll("script[data-plot]").forEach(function (source) {
    var target = document.getElementById(source.dataset.plot), spec = JSON.parse(source.textContent);
    plots.push(target);
    if (target.clientWidth < 640) { makeRoom(target.id, spec.layout); }
    Plotly.newPlot(target, spec.data, spec.layout, { responsive: true, displaylogo: false,
      showSendToCloud: false, showEditInChartStudio: false, plotlyServerURL: "",
      displayModeBar: target.id === "time" || target.id === "precisions" || target.id === "kept" ? false : "hover",
      modeBarButtonsToRemove: ["select2d", "lasso2d", "sendChartToCloud", "sendDataToCloud", "editInChartStudio"] });
  });
  apply(dark.matches);
  dark.addEventListener("change", function () { apply(dark.matches); });
  window.addEventListener("beforeprint", function () { apply(false); });
  window.addEventListener("afterprint", function () { apply(dark.matches); });
})();
