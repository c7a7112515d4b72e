"""papermill: execute a notebook, its page, the study, and sweeps."""
