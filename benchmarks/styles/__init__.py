"""What styles do to the pictures of the embedded SD1.5."""
