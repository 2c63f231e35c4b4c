"""One layer's measured numbers beside what chance alone gives, with its spread."""
