"""Executes: model cards, pipelines, hand-over, fusion, scoring, and files that say how a picture was made.

Importing this package loads neither torch nor diffusers; `load_engine` does.
"""

from models.catalogue import Catalogue, load_card, load_catalogue
from models.engine.engine import Engine, load_engine
from router.errors import Cancelled

__all__ = ["Cancelled", "Catalogue", "Engine", "load_card", "load_catalogue", "load_engine"]
