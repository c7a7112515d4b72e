"""Pure functions from data to plotly figures, in one look; nothing here runs a network or makes a widget."""

# ruff: noqa: F401 - what is imported here is what the room offers

from __future__ import annotations

from .conversion import bit_widths, mismatch_bars, mismatch_table, threshold_staircase
from .cost import break_even, cost_over_time, cycles_bars, energy_bars, memory_bars, operations_bars
from .map import layer_map, mosaic, mosaic_cell, mosaic_position
from .neuron import neuron_trace
from .renderer import draw_in_pages
from .run import accuracy_over_time, settling_histogram, spikes_over_time
from .sample import class_scores, raster, spike_maps
from .settings import accuracy_of_settings, accuracy_vs_cost, robustness, setting_effects
from .speed import cost_curves, limit_bars, speed_bars
from .template import PALETTE, TEMPLATE, take_over
from .training import activation_staircase, sample_images, training_curves, weight_histogram
from .verdict import accuracy_per_energy, break_even_spikes, energy_parts, verdict_bars

draw_in_pages()
