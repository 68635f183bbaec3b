"""The tiled engine: one loop that does every product of matrices, and what it reads and writes."""
