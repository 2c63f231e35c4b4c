"""What the weights of a layer say: its filtration, spanning forest, persistence diagram and neural persistence."""
