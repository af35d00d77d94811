"""Beside the flow of a request: pictures are looked at, outcomes put together, operators answered."""
