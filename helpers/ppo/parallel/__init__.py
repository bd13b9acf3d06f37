"""The same PPO in several processes, in half precision, and where memory runs out."""
