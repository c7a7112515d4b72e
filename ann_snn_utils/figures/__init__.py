"""Pure functions from data to plotly figures, in one look; nothing here runs a network or makes a widget."""

# ruff: noqa: F401 - what is imported here is what the room offers

from __future__ import annotations

from .conversion import (
    activation_staircase,
    bit_widths,
    mismatch_bars,
    threshold_staircase,
    training_curves,
    weight_histogram,
)
from .cost import (
    break_even,
    break_even_spikes,
    cost_over_time,
    cycles_bars,
    energy_bars,
    energy_parts,
    memory_bars,
    operations_bars,
    verdict_bars,
)
from .look import draw_in_pages
from .pictures import class_pictures, kernels, sample_images
from .run import (
    accuracy_over_time,
    confusion_matrix,
    count_histogram,
    neuron_trace,
    robustness,
    settling_histogram,
    spikes_over_time,
)
from .settings import accuracy_of_settings, accuracy_per_energy, accuracy_vs_cost, setting_effects
from .speed import addition_bars, cost_curves, speed_dots

draw_in_pages()
