"""How a model runs here: what an operator writes under `tuning`, applied to its pipeline after it was loaded.

`settings` is what may be said, `applying` the table of what each key does; nothing is ignored: what this machine, this
family or this device lacks is a `LoadError` with the reason and the remedy.
"""
