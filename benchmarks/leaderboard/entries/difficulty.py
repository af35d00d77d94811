"""How hard a prompt is for all models, learned from all sets by one kernel, beside the hand rule."""

from benchmarks.router_real.priors import WithRule

NAME = "difficulty and rule"
ABOUT = "a kernel over all sets of how hard a prompt is for all models, added to the hand rule; only from other sets"
carry = WithRule.carry
