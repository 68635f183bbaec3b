"""One matrix product from plain to fast, for reading and running. Not part of a wheel."""
