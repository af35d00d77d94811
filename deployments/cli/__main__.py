"""`python -m deployments.cli`: the same as the command `triptych`."""

from deployments.cli.main import main

main()
