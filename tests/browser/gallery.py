"""One notebook with every widget, on the recordings and on reviews of the embedded world: what the tests of the look open."""

from pathlib import Path

from in_page import write_notebook

START = """
import sys, tempfile
sys.path.insert(0, "..")
import pandas as pd
from helpers.tiny.grammar import write_reviews
reviews = [review["text"] for review in write_reviews(40, seed=5)]
"""
WIDGETS = {
    "inspector": """
from helpers.widgets.inspector import Challenge, RewardInspector
LOVED, HATED = "love enjoy wonderful convinc superb never".split(), "hate dull boring worst skip forgettable".split()
def keywords(samples, **kwargs):
    counts = [[sum(word in sample.lower() for word in words) for words in (LOVED, HATED)] for sample in samples]
    return [0.5 + 0.5 * (loved - hated) / (loved + hated + 1) for loved, hated in counts]
def length(samples, **kwargs):
    return [-abs(len(sample.split()) - 25) / 25 for sample in samples]
def combined(samples, **kwargs):
    return [a + 0.3 * b for a, b in zip(keywords(samples), length(samples))]
def class_scores(text):
    good = keywords([text])[0]
    return {"POSITIVE": good, "NEGATIVE": 1 - good}
challenges = [
    Challenge("A text that blames, and that keywords reward with more than 0.7.", lambda text, rewards: "not" in text),
    Challenge("Praise that keywords reward with less than 0.3.", lambda text, rewards: False),
    Challenge("A reward above 0.9 that combined gives 0.2 less.", lambda text, rewards: rewards["keywords"] > 0.7),
]
inspector = RewardInspector(
    {"judge": keywords, "keywords": keywords, "combined": combined}, class_scores, {keywords: 1.0, length: 0.3},
    {"example": reviews[:3], "review": reviews, "sample": reviews[3:]}, challenges,
)
for number in range(1, 8):
    inspector.number.value = number % 3 + 1
    inspector.text.value += " Not dull at all." * (number % 2)
inspector.show_words()
inspector.view
""",
    "prompts": """
from helpers.widgets.prompts import PromptBrowser
prompts = [" ".join(review.split()[: 3 + n % 3]) for n, review in enumerate(reviews)]
def tokenize(prompts):
    return [[" " * (n > 0) + word for n, word in enumerate(prompt.split())] for prompt in prompts]
def continue_prompts(prompts, temperature, top_k, top_p):
    return [" " + " ".join(reviews[len(prompt) % 40].split()[4:28]) for prompt in prompts]
def reward_fn(samples, **kwargs):
    return [round(len(sample) % 13 / 12, 2) for sample in samples]
browser = PromptBrowser(prompts * 30, tokenize, continue_prompts, reward_fn)
browser.sample.click()
browser.view
""",
    "explorer": """
from helpers.widgets.samples import SampleExplorer
samples = pd.read_csv("data/kl_lab_samples.csv", keep_default_na=False)
before, after = (samples[samples["beta"] == beta] for beta in (samples["beta"].max(), 0.005))
def tokens(output):
    return [(" " + word, (len(word) - 4) / 6, (n % 5 - 2) / 4) for n, word in enumerate(output.split())]
rows = [
    dict(prompt=a.prompt, before=a.output, after=b.output, reward_before=a.reward, reward_after=b.reward, tokens=tokens(b.output))
    for a, b in zip(before.itertuples(), after.itertuples())
]
explorer = SampleExplorer(rows)
explorer.view
""",
    "kl_lab": """
from helpers.widgets.kl_lab import KLLab
runs, samples = (pd.read_csv(f"data/kl_lab_{name}.csv", keep_default_na=False) for name in ("runs", "samples"))
lab = KLLab(runs.to_dict("records"), samples.to_dict("records"))
lab.view
""",
    "labeller": """
from helpers.feedback.pairs import Pair
from helpers.feedback.ratings import Ratings
from helpers.widgets.labeller import PreferenceLabeller
texts = [" " + " ".join(review.split()[4:30]) for review in reviews]
pairs = [Pair(" ".join(review.split()[:4]), *sorted(texts[n : n + 2])) for n, review in enumerate(reviews[:30])]
labeller = PreferenceLabeller(pairs, Ratings(tempfile.mkdtemp() + "/ratings.jsonl"), rater="Ada")
for choice in ("first", "second", "tie", "first"):
    labeller.appeared -= 10
    labeller.rate(choice)
labeller.view
""",
    "diagnosis": """
from helpers.widgets.diagnosis import Diagnosis
rounds, updates, samples, cases = (
    pd.read_csv(f"data/clinic_{name}.csv", keep_default_na=name != "samples") for name in ("rounds", "updates", "samples", "cases")
)
updates["step"] = (updates["step"] - 1) // 8 * 8
key = ["run", "seed", "step"]
steps = updates.groupby(key)[["entropy", "ratio", "policy_loss"]].first()
curves = rounds.set_index(key)[["reward", "kl", "length", "explained_variance", "distinct_2"]].join(steps).reset_index()
curves["log pi + entropy"], curves["first ratio"] = curves["entropy"], curves.pop("ratio")
seen, texts = (table[table["seed"] == 2].drop(columns="seed") for table in (curves, samples))
diagnosis = Diagnosis(*(table.to_dict("records") for table in (seen, texts, cases)))
diagnosis.view
""",
}


def write_gallery(path: Path) -> None:
    """Write the notebook: each widget, then each widget's static double."""
    static = [source.replace(".view", ".static()") for source in WIDGETS.values()]
    write_notebook(path, [START, *WIDGETS.values(), *static])
