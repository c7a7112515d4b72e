"""Live figures that share one copy of plotly.js, and stay as wide as the page leaves them room.

A FigureWidget brings all of plotly.js with it, five megabytes each, and its front end gives up on a page that
cannot load a widget's code within two seconds. Here one invisible widget brings the code for all of them.
"""

from __future__ import annotations

from functools import cache

import anywidget
import plotly.graph_objects as go
import traitlets

_SLOT = """const slot = (globalThis.annSnnPlotly ??= (() => {
  let give; const code = new Promise(resolve => { give = resolve; }); return { code, give }; })());
"""

# Figures are sized when the window is, and only then: whenever they appear, or their place changes, say so.
_STAGE = (
    _SLOT
    + """
function initialize({ model }) {
  const file = new Blob([model.get('source')], { type: 'text/javascript' });
  slot.give(import(URL.createObjectURL(file)).then(code => {
    // After each redraw plotly would compare all that it drew with what it was told, to tell the kernel.
    Object.assign(code.FigureView?.prototype ?? {}, { _sendTraceDeltas() {}, _sendLayoutDelta() {} });
    return code;
  }));
}
function render({ el }) {
  let box, drawn = -1, timer;
  const resize = () => window.dispatchEvent(new Event('resize'));
  const fit = () => { clearTimeout(timer); timer = setTimeout(resize, 50); };
  const plots = new MutationObserver(() => {
    const now = box.querySelectorAll('.js-plotly-plot .main-svg').length;
    if (now !== drawn) { drawn = now; fit(); }
  });
  // Called first when the element has its place on the page, then whenever that changes.
  const sizes = new ResizeObserver(() => {
    if (!box && (box = el.closest('.snn-explorer'))) {
      plots.observe(box, { childList: true, subtree: true });
      // JupyterLab's own keys (letters, digits, arrows) would be taken from the list or slider in focus.
      box.addEventListener('focusin', ({ target }) => { target.dataset.lmSuppressShortcuts = 'true'; });
    }
    fit();
  });
  sizes.observe(el);
  return () => { sizes.disconnect(); plots.disconnect(); };
}
export default { initialize, render };"""
)

# plotly's own front end, started as soon as its code is there; it is told of the updates that came before.
_FIGURE = (
    _SLOT
    + """
const UPDATE = '_py2js_update';
export default () => {
  let started;
  const start = async model => {
    const early = [], keep = () => { const update = model.get(UPDATE); if (update) early.push(update); };
    model.on(`change:${UPDATE}`, keep);
    const figure = (await slot.code).default();
    model.off(`change:${UPDATE}`, keep);
    figure.initialize({ model });
    for (const update of early) { model.set(UPDATE, update); model.set(UPDATE, null); }
    return figure;
  };
  return {
    initialize({ model }) { started = start(model); },
    async render(context) { return (await started).render(context); },
  };
};"""
)


class Stage(anywidget.AnyWidget):
    """Invisible in each explorer's box: brings plotly.js to the page, and fits the box's figures to it."""

    _esm = _STAGE
    source = traitlets.Unicode().tag(sync=True)


class LiveFigure(go.FigureWidget):
    """A FigureWidget whose code comes from the stage."""

    _esm = _FIGURE


@cache
def stage() -> Stage:
    """The stage, one for all explorers of a notebook."""
    return Stage(source=str(go.FigureWidget._esm))


def alive(figures: dict[str, go.Figure]) -> dict[str, go.FigureWidget]:
    """Live figures, made with their first data: later ones are lost when the page is loaded again."""
    made = {name: LiveFigure(figure) for name, figure in figures.items()}
    for figure in made.values():
        figure._config = {**figure._config, "responsive": True, "displaylogo": False}
    return made
