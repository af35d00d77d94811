"""What stands before the application: Serve's proxy runs it, and hands on what is sound."""
