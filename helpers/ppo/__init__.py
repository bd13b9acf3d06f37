"""Proximal policy optimisation with trlX's interface.

Read in this order: fields and config, then the plain PPO in policy, sampling, rollout, loss and trainer. run and checkpoint
have what surrounds it, train the call. fast/ computes the same in less time; parallel/ does so in several processes, in half
precision and where memory runs out.

Nothing here knows of notebooks, widgets or scale.
"""
