"""What must last: jobs, pictures, keys, usage, decisions. One database, and one place for the bytes of pictures."""
