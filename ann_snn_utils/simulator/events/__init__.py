"""The spike-driven simulator, compiled: work only where a spike arrives, all T steps of an image in one pass."""
