"""What the tests of the report share: prompts, words, texts that try to run, and the samples of a small run before and after."""

from ppo_run import PROMPTS, count_the

from helpers import compare

HELD_OUT = [f"{prompt} {word}" for prompt in PROMPTS for word in ("and", "was", "is", "of", "in")]
WORDS = dict(
    reward='how often "the" occurs',
    prompts="beginnings of reviews",
    repeat="from helpers import run\nrun(\n    seed=2,\n)",
)
HOSTILE = [
    "<img src=x onerror=\"document.title='hacked'\">",
    "<script>document.title='hacked'</script>",
    "</script><script>document.title='hacked'</script>",
    "\"><svg onload=document.title='hacked'>--><!--",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "NUL \x00, bell \x07, {braces} and %BLUE%",
    "longword" * 12,
]
HALF = "half of a pair \ud83c"


def compare_run(trainer, prompts=HELD_OUT, **kwargs):
    given = dict(tokenizer=trainer.tokenizer, prompts=prompts, reward_fn=count_the, max_new_tokens=8)
    return compare.before_after(trainer.policy.reference, trainer.model, **given, **kwargs)
