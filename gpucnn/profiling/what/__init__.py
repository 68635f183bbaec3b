"""The subject of a profile: the operations of a network or a shape, the work in each, and checks of their results."""
