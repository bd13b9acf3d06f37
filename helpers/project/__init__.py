"""A project of the reader's own: prompts, rewards, a round on trial, the report of a run, and the card of its model."""
