"""One layer's numbers beside what chance gives."""
