"""What there is to look at: a network's or a shape's operations, the work in each, and whether its results are right."""
