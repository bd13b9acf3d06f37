"""From ratings to a reward: ratings and their file, a simulated rater, agreement, exchange with other trainers, the reward model."""
