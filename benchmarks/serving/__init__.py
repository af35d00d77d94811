"""What the serving core shows: nothing lost, exact bounds, fair order, and what all of it costs."""
