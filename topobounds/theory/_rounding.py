"""What rounding in double precision may cost, with room to spare: the radii of everything that is certified."""

ROUNDING_UNIT = 2.0**-48  # more than a few roundings of a number, and of numpy's functions of it, in parts of its size
ROUNDING_FACTOR = 1 + 2.0**-34  # more than the rounding in products and sums of 2^18 positive numbers
SUBNORMAL = 2.0**-1060  # more than what an exponential, and a product with it, loses where doubles have fewer digits
