"""Which way of running a model is worth it: ways are drawn, looked at, and halved until a few are left."""
