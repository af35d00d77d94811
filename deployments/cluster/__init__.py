"""Everything that knows Ray: the application graph, its replicas, the handles between them, and a Ray of one's own."""
