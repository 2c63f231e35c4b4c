"""Data sets, nets and the loops that train them."""
