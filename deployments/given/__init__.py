"""Pictures that requests bring: from uploads to files with a digest, and from those to what steps work on."""
