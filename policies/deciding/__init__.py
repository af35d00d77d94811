"""The choice, as a pure function. Plans, estimates and a `Context` (time, chance, budgets) come in; a `Decision` with
its reasons goes out. Gates first, then rules and objective.
"""
