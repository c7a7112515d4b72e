"""Where figures are drawn: by JupyterLab for a reader, or in the page of a program that executes the notebook."""

from __future__ import annotations

import os
import sys


def has_reader() -> bool:
    """Whether somebody may look at the notebook while it runs; True outside a kernel.

    A front end lets the kernel ask its reader for input, and a program that executes a notebook does not.
    """
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    request = kernel.get_parent("shell") if kernel is not None else {}
    return bool(request.get("content", {}).get("allow_stdin", True))


def draw_in_pages() -> None:
    """Draw figures in HTML too, where a program executes the notebook and PLOTLY_RENDERER does not say how.

    By default plotly leaves them to the front end, and the page that nbconvert makes has none. plotly.js, 5 MB, is
    written once, into the output of the cell that calls this.
    """
    if not os.environ.get("PLOTLY_RENDERER") and not has_reader():
        import plotly.io

        plotly.io.renderers.default = "plotly_mimetype+notebook"
