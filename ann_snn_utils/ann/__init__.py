"""Networks that are trained: notation and layers, ternary weights and whole levels, training, files, imports."""
