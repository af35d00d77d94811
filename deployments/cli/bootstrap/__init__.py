"""Measure your own: pictures, judges, labels, and what came of it."""
