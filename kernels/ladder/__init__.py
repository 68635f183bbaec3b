"""One product of matrices from plain to fast, to be read and run. Beside the packages, and in no wheel."""
