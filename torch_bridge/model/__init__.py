"""What the layers of any torch model are to a graph: read, traced and reported."""
