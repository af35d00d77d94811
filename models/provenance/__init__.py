"""Files that say how their pictures were made, and what can be read from files, our own and those of others."""

from models.provenance.files import FORMATS, encode_image
from models.provenance.reading import read_metadata

__all__ = ["FORMATS", "encode_image", "read_metadata"]
