"""Pure functions from data to plotly figures, in one look; nothing here runs a network or makes a widget."""

# ruff: noqa: F401 - what is imported here is what the room offers

from __future__ import annotations

from .conversion import bit_widths, mismatch_bars, threshold_staircase
from .cost import break_even, cost_over_time, cycles_bars, energy_bars, energy_parts, memory_bars, operations_bars
from .neuron import neuron_trace
from .pictures import class_pictures, kernels, sample_images
from .renderer import draw_in_pages
from .run import (
    accuracy_over_time,
    confusion_matrix,
    count_histogram,
    robustness,
    settling_histogram,
    spikes_over_time,
)
from .settings import accuracy_of_settings, accuracy_vs_cost, setting_effects
from .speed import addition_bars, cost_curves, speed_dots
from .training import activation_staircase, training_curves, weight_histogram
from .verdict import accuracy_per_energy, break_even_spikes, verdict_bars

draw_in_pages()
