"""From no ratings to a router: which pictures to make next, when to stop, and whether it was worth it."""
