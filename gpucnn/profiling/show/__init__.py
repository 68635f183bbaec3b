"""A profile as text, as a page, as a trace, and beside another one."""
