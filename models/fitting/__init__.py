"""What fits on which GPU, and what would make the rest fit: planned from configurations, before anything is downloaded.

Cards and the memory of GPUs come in; a placement for the serve config goes out, or what stands in its way.
"""
