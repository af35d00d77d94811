"""Models on one accelerator: one step at a time, cancellable, with progress."""
