"""Finding, fitting, loading and naming weights. A model card comes in; a loaded pipeline, its revision and its memory
go out, or why it cannot be loaded.
"""
