"""What models need of a device: parameters, activations, memory."""
