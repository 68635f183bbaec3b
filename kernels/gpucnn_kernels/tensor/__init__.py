"""The same products on tensor cores, for the chips that are known to be right with them."""
