"""Turns the stages of a recipe into the steps of a plan, a module for each kind of stage."""
