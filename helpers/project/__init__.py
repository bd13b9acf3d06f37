"""A reader's own project: rewards and prompts as one writes them, and what comes before and after the training."""
