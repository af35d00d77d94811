"""The life of jobs in one process: taken in, run, ended, and taken over from a process that died."""
