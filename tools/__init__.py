"""Scripts that make what is shipped; the product does not import them."""
