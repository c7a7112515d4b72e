"""Pure functions from data to plotly figures, in one look; nothing here runs a network or makes a widget."""

from __future__ import annotations

from .conversion import bit_widths, mismatch_bars, mismatch_table, threshold_staircase
from .cost import break_even, cost_over_time, cycles_bars, energy_bars, memory_bars, operations_bars
from .map import layer_map, mosaic, mosaic_cell, mosaic_position
from .neuron import neuron_trace
from .run import accuracy_over_time, settling_histogram, spikes_over_time
from .sample import class_scores, raster, spike_maps
from .settings import accuracy_of_settings, accuracy_vs_cost, robustness, setting_effects
from .speed import cost_curves, limit_bars, speed_bars
from .template import PALETTE, TEMPLATE, take_over
from .training import activation_staircase, sample_images, training_curves, weight_histogram

__all__ = [
    "PALETTE",
    "TEMPLATE",
    "accuracy_of_settings",
    "accuracy_over_time",
    "accuracy_vs_cost",
    "activation_staircase",
    "bit_widths",
    "break_even",
    "class_scores",
    "cost_curves",
    "cost_over_time",
    "cycles_bars",
    "energy_bars",
    "layer_map",
    "limit_bars",
    "memory_bars",
    "mismatch_bars",
    "mismatch_table",
    "mosaic",
    "mosaic_cell",
    "mosaic_position",
    "neuron_trace",
    "operations_bars",
    "raster",
    "robustness",
    "sample_images",
    "setting_effects",
    "settling_histogram",
    "speed_bars",
    "spike_maps",
    "spikes_over_time",
    "take_over",
    "threshold_staircase",
    "training_curves",
    "weight_histogram",
]
