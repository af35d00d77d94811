"""Executes: model cards, pipelines, hand-over, fusion, scoring, and files that say how a picture was made.

Importing this package loads neither torch nor diffusers; an `Engine` does, when it is made.
"""

from models.catalog import Catalog, load_card, load_catalogue
from models.engine.engine import Engine
from models.engine.progress import Cancelled

__all__ = ["Cancelled", "Catalog", "Engine", "load_card", "load_catalogue"]
