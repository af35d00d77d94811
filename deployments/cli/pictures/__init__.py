"""Commands about pictures that are there already: what their files say, and whether they can be made again."""
