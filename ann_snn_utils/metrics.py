"""Everything that is measured on a run or a network, in one place."""

from __future__ import annotations

from .activity import FiringRates, Settling, accuracy, cancelled, correct, firing_rates, settling, sparsity
from .energy import ENERGY_45NM, Energy, EnergyConstants, Parts, energy, macs
from .equivalence import Equivalence, Mismatch, check_equivalence
from .logs import log_folder, write_logs

__all__ = [
    "ENERGY_45NM",
    "Energy",
    "EnergyConstants",
    "Equivalence",
    "FiringRates",
    "Mismatch",
    "Parts",
    "Settling",
    "accuracy",
    "cancelled",
    "check_equivalence",
    "correct",
    "energy",
    "firing_rates",
    "log_folder",
    "macs",
    "settling",
    "sparsity",
    "write_logs",
]
