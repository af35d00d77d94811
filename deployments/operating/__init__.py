"""What operators ask: how everything is, what was served, and what a policy would change."""
