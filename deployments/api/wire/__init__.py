"""The wire: what bodies mean, and how answers look. Builtins and bytes; nothing here knows HTTP routes."""
