"""The command `triptych`, a module for each group of subcommands; and how results look in a terminal."""
