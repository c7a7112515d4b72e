"""A run on disk: parameters, manifest, results; and runs side by side."""
