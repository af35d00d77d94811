"""The tiny application's settings, as the tests of deployments have them."""

from tests.deployments.conftest import settings

__all__ = ["settings"]
