"""That network over time: the neuron, dense tensors, the compiled loop, noise and faults."""
