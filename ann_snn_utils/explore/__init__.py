"""Explorers for JupyterLab: sliders wired to the figures, and still pictures of them everywhere else."""

from __future__ import annotations

from .bench import conversion_bench
from .chooser import networks
from .lab import accuracy_lab
from .microscope import neuron_microscope
from .network_view import network_over_time
from .page import Explorer, live
from .worker import Latest

__all__ = [
    "Explorer",
    "Latest",
    "accuracy_lab",
    "conversion_bench",
    "live",
    "network_over_time",
    "networks",
    "neuron_microscope",
]
