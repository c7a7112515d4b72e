"""Explorers: pages of controls wired to the figures, alive in JupyterLab, and in time and space everywhere else."""

# ruff: noqa: F401 - what is imported here is what the room offers

from __future__ import annotations

from .bench import conversion_bench, energy_bench
from .chooser import networks
from .page import Explorer, live
from .sample import one_image
from .trials import accuracy_lab, compare_networks
