"""The circuit, its cost, and the bundle to check a design against."""
