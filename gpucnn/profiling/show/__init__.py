"""Output of a profile: as text, as a page, as a trace, and compared with another one."""
