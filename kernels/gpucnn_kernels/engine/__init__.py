"""The tiled engine: one loop for all matrix products, and the operands that it reads and writes."""
