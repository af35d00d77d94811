"""Triptych's router: estimates every recipe for a prompt, lets a policy choose, arranges and walks the plan.

No Ray, FastAPI, diffusers or torch in here. Nothing is exported: names are imported from the modules that hold them, so
that a policy which needs a type does not load an embedder.
"""
