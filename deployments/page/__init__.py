"""The page that browsers get at `/`: one static bundle, built from `web/` and committed in `built/`."""
