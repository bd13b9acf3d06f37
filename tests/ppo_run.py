"""A very small PPO run on the embedded models, for tests; as a script: `python ppo_run.py FOLDER STEPS` for killing.

PPO_RUN_ENGINE chooses who trains: "builtin", or "trlx", the real one.
"""

import json
import os
import sys
from pathlib import Path

from helpers.engine import default_grpo_config, default_ppo_config, default_rloo_config
from helpers.tiny import TINY

MODEL = str(TINY / "gpt2-reviews")
PROMPTS = [
    "I watched this film",
    "The director of this",
    "My sister took me to",
    "Halfway through the",
    "The plot",
]


DEFAULTS = {
    "PPOConfig": default_ppo_config,
    "RLOOConfig": default_rloo_config,
    "GRPOConfig": default_grpo_config,
}


def small_config(folder, **changes):
    """16 rollouts of 8 tokens a round, two PPO epochs of two batches: four steps a round. `method` may name another than PPO."""
    config = DEFAULTS[changes.get("method", {}).get("name", "PPOConfig")]().evolve(
        model=dict(model_path=MODEL, num_layers_unfrozen=2),
        tokenizer=dict(tokenizer_path=MODEL),
        train=dict(
            total_steps=8,
            seq_length=64,
            batch_size=8,
            eval_interval=4,
            checkpoint_interval=4,
            checkpoint_dir=str(folder),
            save_best=False,
        ),
        optimizer=dict(kwargs=dict(lr=1e-3)),
        scheduler=dict(kwargs=dict(eta_min=1e-3)),
        method=dict(
            num_rollouts=16, chunk_size=8, ppo_epochs=2, init_kl_coef=0.05, gen_kwargs=dict(max_new_tokens=8)
        ),
    )
    return config.evolve(**changes)


def count_the(samples, **kwargs):
    """A reward that needs no model: how often "the" occurs."""
    return [float(sample.lower().count("the")) for sample in samples]


def engine_train():
    if os.environ.get("PPO_RUN_ENGINE") == "trlx":
        from helpers.real_trlx.train import train
    else:
        from helpers.ppo.train import train
    return train


def small_run(
    folder,
    listeners=(),
    reward_fn=count_the,
    prompts=PROMPTS,
    eval_prompts=PROMPTS,
    changes=None,
    **kwargs,
):
    config = small_config(folder, **(changes or {}))
    return engine_train()(
        reward_fn=reward_fn,
        prompts=prompts,
        eval_prompts=eval_prompts,
        config=config,
        listeners=listeners,
        **kwargs,
    )


def without_times(history) -> dict:
    """The history as plain data, without the seconds, which differ from run to run."""
    return {
        kind: [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows]
        for kind, rows in vars(history).items()
    }


class Announce:
    """Prints each step, so that a test knows when to kill."""

    def start(self, trainer): ...

    def progress(self, trainer):
        print(f"step {trainer.step}", flush=True)

    def end(self, trainer): ...


if __name__ == "__main__":
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    changes = {"train": {"total_steps": steps, "resume_from_checkpoint": str(folder)}}
    trainer = small_run(folder, changes=changes, listeners=[Announce()])
    (folder / "history.json").write_text(json.dumps(without_times(trainer.history)))
