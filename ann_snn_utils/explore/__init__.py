"""Explorers for JupyterLab: sliders wired to the figures, and still pictures of them everywhere else."""

# ruff: noqa: F401 - what is imported here is what the room offers

from __future__ import annotations

from .bench import conversion_bench
from .chooser import networks
from .energy import energy_bench
from .lab import accuracy_lab
from .microscope import neuron_microscope
from .network_view import network_over_time
from .page import Explorer, live
from .worker import Latest
