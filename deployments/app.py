"""The import path that Ray Serve is given: `serve run deployments.app:build`, or `import_path:` of a config."""

from deployments.cluster.application import build

__all__ = ["build"]
