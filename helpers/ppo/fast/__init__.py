"""The same PPO with each thing computed once."""
