"""(placeholder until the real store is merged)"""

from typing import Any

Store = Any
