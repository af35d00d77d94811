"""From no ratings to a router that is proven to pay: pictures, judges, training, and what it is worth."""
