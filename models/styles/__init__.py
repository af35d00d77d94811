"""Styles: what a pipeline wears for one picture and takes off without a trace."""
