"""A project of one's own: what is written about a run when it is over."""
