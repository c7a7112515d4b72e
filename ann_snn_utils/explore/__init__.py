"""Explorers: pages of controls wired to the figures, alive in JupyterLab, and in time and space everywhere else."""

# ruff: noqa: F401 - what is imported here is what the room offers

from __future__ import annotations

from .bench import conversion_bench
from .chooser import networks
from .compare import compare_networks
from .lab import accuracy_lab
from .page import Explorer, live
from .sample import one_image
