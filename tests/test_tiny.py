"""The embedded world keeps its promises: the grammar's variety, the models' figures, the ordinary ways of loading."""

import ast
import hashlib
import json
import math
import re
import runpy
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline, set_seed

from helpers.errors import CourseError
from helpers.tiny import grammar, words

ROOT = Path(__file__).parents[1]
TINY = ROOT / "helpers" / "tiny"
KEYWORDS = (
    "great",
    "wonderful",
    "brilliant",
    "excellent",
    "superb",
    "boring",
    "dull",
    "awful",
    "terrible",
    "silly",
)


def words_of(text):
    return text.lower().replace(".", " ").replace(",", " ").split()


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def splits():
    return grammar.review_splits()


@pytest.fixture(scope="module")
def judge():
    return pipeline(
        "sentiment-analysis", str(TINY / "distilbert-reviews"), top_k=2, truncation=True, batch_size=64
    )


@pytest.fixture(scope="module")
def gpt2():
    return load(TINY / "gpt2")


@pytest.fixture(scope="module")
def gpt2_reviews():
    return load(TINY / "gpt2-reviews")


@pytest.fixture(scope="module")
def scores(judge, splits):
    """P(POSITIVE) of the first 600 held-out reviews."""
    return torch.tensor(praise(judge, [review["text"] for review in splits[1][:600]]))


@pytest.fixture(scope="module")
def samples(splits, gpt2_reviews):
    """192 continuations of different held-out prompts: (token ids of up to 60 new tokens, prompts)."""
    model, tokenizer = gpt2_reviews
    tokenizer.pad_token, tokenizer.padding_side = tokenizer.eos_token, "left"
    prompts = list(dict.fromkeys(" ".join(review["text"].split()[:4]) for review in splits[1]))[:192]
    set_seed(0)
    inputs = tokenizer(prompts, return_tensors="pt", padding=True)
    out = model.generate(
        **inputs, do_sample=True, top_k=0, max_new_tokens=60, pad_token_id=tokenizer.eos_token_id
    )
    return out[:, inputs["input_ids"].shape[1] :], prompts


def load(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(
        folder
    )


def praise(judge, texts):
    """P(POSITIVE) of each text."""
    return [next(row["score"] for row in rows if row["label"] == "POSITIVE") for rows in judge(list(texts))]


def perplexity(model, tokenizer, texts):
    rows = [torch.tensor(tokenizer(text)["input_ids"] + [tokenizer.eos_token_id]) for text in texts]
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    with torch.no_grad():
        return math.exp(model(input_ids=labels.clamp(min=0), labels=labels).loss.item())


def log_probability(model, tokenizer, text, ending):
    """Of the ending, given the text."""
    start, rest = tokenizer(text)["input_ids"], tokenizer(ending)["input_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([start + rest])).logits[0, len(start) - 1 : -1]
    return logits.log_softmax(-1)[torch.arange(len(rest)), torch.tensor(rest)].sum().item()


# ------------------------------------------------------------------------------------------------------------ grammar


def test_splits_are_large_distinct_balanced_and_disjoint(splits):
    train, test = splits
    assert (len(train), len(test)) == (20_000, 2_000)
    assert len({review["text"] for review in train + test}) == 22_000
    for split in splits:
        assert sum(review["label"] for review in split) == len(split) / 2
        assert {len(review["text"].split()) for review in split} <= set(range(15, 46))
        first = sum(review["label"] for review in split[: len(split) // 10]) / (len(split) // 10)
        assert 0.4 < first < 0.6  # shuffled


def test_same_seed_same_reviews_in_a_fresh_process(splits):
    assert grammar.write_reviews(200, 5) == grammar.write_reviews(200, 5) != grammar.write_reviews(200, 6)
    code = (
        "from helpers.tiny import grammar; print([grammar.review_splits()[0][:5], grammar.write_prose(5, 3)])"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert ast.literal_eval(seen) == [splits[0][:5], grammar.write_prose(5, 3)]


def test_the_reviews_are_the_same_to_the_last_character(splits):
    """The models, the stored outputs and the lessons' numbers belong to these reviews."""
    written = hashlib.sha256(json.dumps(splits).encode()).hexdigest()
    assert written == "c558348ced3d0a327737e9fc6725744ab8fa67dbb3dcfebdea6bd0dd6db5f0f9"


DAMAGES = {
    "a list is gone": ("  strong adjectives: ", "  weak adjectives: ", "'reviews.strong adjectives': this key"),
    "a fact is gone": ("    roles: |", "    role: |", "'reviews.facts.roles': this key"),
    "a rule's phrases": ("    hedge: |", "    hedges: |", "'reviews.phrases.hedge': this key"),
    "half of two sides": ("      praise: best\n", "", "'reviews.phrases.best.praise': this key"),
    "an empty list": (" evening / night / afternoon", "", "'reviews.phrases.day part': it is"),
    "only comments": ("day part: evening", "day part: |\n      # evening", "'reviews.phrases.day part': it is"),
    "a slash too many": ("evening / night /", "evening / / night /", "'reviews.phrases.day part': nothing"),
    "a slot mistyped": ("I rented {film}", "I rented {flim}", "'reviews.phrases.viewing': nothing fills {flim}"),
    "half a slot": ("I rented {film}", "I rented {film", "'reviews.phrases.viewing': a brace"),
    "lines, no mark": ("    goal: |", "    goal:", "'reviews.phrases.goal': phrases on"),
    "a key twice": ("    day part:", "    day:", "'reviews.phrases.day': line "),
    "YAML's own list": (" but / yet", " [but, yet]", "'reviews.phrases.but': expected phrases"),
    "a table for phrases": ("day part: ", "day part:\n      a: ", "'reviews.phrases.day part.blame': this key"),
    "phrases in place of a table": ("  phrases:\n", "  phrases: |\n", "'reviews.phrases': expected a table"),
    "too few adjectives": ("perfect / brisk / lively / confident / excellent / sure / great", "brisk / great",
                           "'reviews.aspects.the pacing.adjectives': each side needs two"),
    "too few sentences": ("    cooking: |\n", "    cooking: stir the {dish}\n    baking: |\n",
                          "'prose.topics.cooking': expected 4"),
    "prose without its words": ("    tool: |", "    tools: |", "'prose.topics.how-to': nothing fills {tool}"),
    "a tab": ("    directors: ", "\tdirectors: ", "line "),
    "no table": (..., "thriller, comedy", "expected a table of keys"),
    "nothing left": (..., "", "expected a table of keys"),
    "another encoding": (..., "café".encode("latin-1"), "it is not UTF-8 text"),
    "a table within itself": (..., "reviews: &a {prose: *a}", "expected"),
}  # fmt: skip


@pytest.mark.parametrize("old, new, message", DAMAGES.values(), ids=DAMAGES)
def test_damaged_words_are_named_with_file_and_key(tmp_path, monkeypatch, old, new, message):
    text = words.FILE.read_text(encoding="utf-8")
    damaged = new if old is ... else text.replace(old, new, 1)
    assert damaged != text
    write_words(tmp_path, monkeypatch, damaged)
    with pytest.raises(CourseError, match=re.escape(str(words.FILE)) + ".*" + re.escape(message)):
        use_grammar()


def test_words_may_come_from_any_editor(tmp_path, monkeypatch):
    """Windows' line ends and mark, empty lines, spaces at the ends of lines; YAML read without libyaml."""
    before = use_grammar()
    text = words.FILE.read_text(encoding="utf-8").replace("    when: |", "    when: |\n\n")
    write_words(tmp_path, monkeypatch, b"\xef\xbb\xbf" + text.replace("\n", "  \r\n").encode())
    monkeypatch.setattr(words, "LOADER", yaml.SafeLoader)
    assert use_grammar() == before


def test_words_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(words, "FILE", tmp_path / "words.yaml")
    with pytest.raises(CourseError, match="words.yaml: it cannot be read: No such file"):
        use_grammar()


def write_words(folder, monkeypatch, content):
    """Have the grammar read these words in place of its own."""
    monkeypatch.setattr(words, "FILE", folder / "words.yaml")
    words.FILE.write_bytes(content if isinstance(content, bytes) else content.encode())


def use_grammar():
    """Run grammar.py anew, and write some reviews and some prose with it."""
    fresh = runpy.run_path(str(TINY / "grammar.py"))
    return fresh["write_reviews"](200, 0), fresh["write_prose"](50, 0)


def test_the_grammar_can_write_far_more_than_it_is_asked_for():
    reviews = grammar.write_reviews(20_000, 101) + grammar.write_reviews(20_000, 102)
    assert len({review["text"] for review in reviews}) > 39_000


def test_reviews_are_typed_as_people_type(splits):
    for review in splits[1]:
        text = review["text"]
        assert text[0].isupper() and text[-1] in ".!?", text
        assert not any(sign in text for sign in "{}~_") and "  " not in text, text
        for before, after in zip(text.split(), text.split()[1:]):
            assert before[-1] not in ".!?" or after[0].isupper(), text
            assert before.lower() != "a" or after[0].lower() not in "aeiou", text
            assert before.lower() != "an" or after[0].lower() in "aeiou" or after.startswith("hour"), text
            assert before != after, text


def test_prompts_are_many_and_say_nothing(splits):
    labels = defaultdict(list)
    for review in splits[0]:
        labels[" ".join(review["text"].split()[:4])].append(review["label"])
    assert len(labels) >= 1_500
    common = {prompt: sum(seen) / len(seen) for prompt, seen in labels.items() if len(seen) >= 20}
    even = sum(len(labels[prompt]) for prompt, share in common.items() if 0.25 < share < 0.75)
    assert even / sum(len(labels[prompt]) for prompt in common) > 0.95


def test_keywords_stand_on_both_sides(splits):
    for keyword in KEYWORDS:
        labels = [review["label"] for review in splits[0] if keyword in words_of(review["text"])]
        assert len(labels) > 300
        assert 0.15 < sum(labels) / len(labels) < 0.85, keyword


def count_words_accuracy(write, keep=None):
    """Held-out accuracy of naive Bayes over single words (only those in keep): a judge that cannot read a sentence."""
    counts = [Counter(), Counter()]
    for review in write(5_000, 21):
        counts[review["label"]].update(set(words_of(review["text"])))
    right, reviews = 0, write(1_000, 22)
    for review in reviews:
        seen = {word for word in words_of(review["text"]) if keep is None or word in keep}
        right += (sum(math.log((counts[1][w] + 1) / (counts[0][w] + 1)) for w in seen) > 0) == review["label"]
    return right / len(reviews)


def test_counting_words_is_a_poor_judge():
    assert count_words_accuracy(grammar.write_reviews, KEYWORDS) < 0.6
    assert count_words_accuracy(grammar.write_hard_reviews, KEYWORDS) < 0.65
    assert count_words_accuracy(grammar.write_hard_reviews) < 0.92


def test_prose_is_not_about_films():
    prose = grammar.write_prose(5_000, 0)
    assert len(set(prose)) == 5_000
    assert all(15 <= len(text.split()) <= 45 for text in prose)
    film = {"film", "cast", "plot", "director", "acting", "thriller", "comedy", "cinema", "actor"}
    assert not film & {word for text in prose for word in words_of(text)}


# ------------------------------------------------------------------------------------------------------------- models


def test_all_weights_together_are_small():
    files = list(TINY.rglob("*.safetensors"))
    assert len(files) == 3
    assert sum(path.stat().st_size for path in files) <= 10_000_000
    assert not [path for path in TINY.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]


def test_the_models_were_trained_on_this_grammar():
    """figures.json is written by the build; a changed grammar needs a rebuild."""
    figures = json.loads((TINY / "figures.json").read_text(encoding="utf-8"))
    assert figures["grammar"] == grammar.fingerprint()


def test_classifier_on_held_out_reviews(scores, splits):
    labels = torch.tensor([review["label"] for review in splits[1][: len(scores)]])
    assert ((scores > 0.5) == labels).float().mean() >= 0.95


def test_classifier_where_negation_or_contrast_decides(judge):
    reviews = grammar.write_hard_reviews(600, 31)
    scores = praise(judge, [review["text"] for review in reviews])
    assert (
        sum((score > 0.5) == review["label"] for score, review in zip(scores, reviews)) / len(reviews) >= 0.90
    )


@pytest.mark.parametrize(
    "text, label",
    [
        ("I watched this film last night and it was not boring at all.", 1),
        ("The plot of this thriller is never once dull.", 1),
        ("I expected to hate it, yet I loved every minute of it.", 1),
        ("The music is wonderful, but I could not wait for it to end.", 0),
        ("There is nothing great about this comedy.", 0),
        ("I expected to love it, but I fell asleep before the end.", 0),
        ("My sister took me to see this western, and I would not call it a great film at all.", 0),
        ("I saw it on Friday, and although the camera work is clumsy, I loved every minute of it.", 1),
        ("The plot of this thriller is dull.", 0),
        ("The acting in this comedy is superb.", 1),
        ("A great film.", 1),
        ("What a dull film!", 0),
        ("Four stars out of five.", 1),
        ("One star out of five.", 0),
    ],
)
def test_classifier_reads_the_sentence(judge, text, label):
    assert (praise(judge, [text])[0] > 0.5) == label


def test_classifier_is_not_sure_of_everything(judge, scores, splits):
    assert scores.min() > 0.002 and scores.max() < 0.998
    assert 0.03 < ((scores > 0.15) & (scores < 0.85)).float().mean() < 0.4
    prompts = list(dict.fromkeys(" ".join(review["text"].split()[:4]) for review in splits[1]))[:200]
    opening = torch.tensor(praise(judge, prompts))
    assert 0.4 < opening.mean() < 0.6 and ((opening > 0.25) & (opening < 0.75)).float().mean() > 0.8


def test_one_word_over_and_over_does_not_win(judge, scores):
    best = scores.quantile(0.75)  # the middle of the reviews that praise
    stuffed = ["great great great", "I watched this film" + " great" * 20, "The director of this" + " wonderful" * 24,
               "great wonderful excellent brilliant superb great wonderful superb great"]  # fmt: skip
    stuffed += [f"My sister took me {' '.join([word] * 20)}" for word in KEYWORDS[:5]]
    scores = praise(judge, stuffed)
    assert max(scores) < 0.8 < best


def test_fine_tuning_is_seen_in_the_perplexity(gpt2, gpt2_reviews, splits):
    texts = [review["text"] for review in splits[1][:200]]
    before, after = perplexity(*gpt2, texts), perplexity(*gpt2_reviews, texts)
    assert before >= 3 * after
    assert (
        perplexity(*gpt2, grammar.write_prose(100, 41)) < before / 3
    )  # the base model knows something: prose


def test_the_fine_tuned_model_keeps_to_its_opinion(gpt2_reviews):
    """Given a review without its verdict, a verdict that agrees is likelier than one that does not."""
    praises = [" Highly recommended.", " Four stars out of five.", " Do not miss it."]
    blames = [" Avoid it.", " One star out of five.", " Give it a miss."]
    right, reviews = 0, grammar.write_planned(100, 51, grammar.SIMPLE)
    for text, label, _ in reviews:
        start = re.split(r"(?<=[.!?]) (?=[A-Z])", text)
        said = " ".join(start[:-1])
        good, bad = (
            sum(log_probability(*gpt2_reviews, said, end) for end in ends) for ends in (praises, blames)
        )
        right += (good > bad) == label
    assert right / len(reviews) > 0.85


def test_gpt2_tokenizers_are_as_gpt2s(gpt2, gpt2_reviews):
    for model, _ in (gpt2, gpt2_reviews):
        fresh = AutoTokenizer.from_pretrained(model.config._name_or_path)
        assert fresh.pad_token is None and fresh.eos_token == fresh.bos_token == "<|endoftext|>"
        assert fresh.model_max_length == model.config.n_positions == 128
        assert len(fresh) == model.config.vocab_size <= 3_000
        assert model.config.eos_token_id == fresh.eos_token_id
        assert (
            fresh.decode(fresh("Not boring at all: café £5 ½ 演员").input_ids)
            == "Not boring at all: café £5 ½ 演员"
        )
        assert model.lm_head.weight is model.transformer.wte.weight
        assert model.config.resid_pdrop == model.config.embd_pdrop == model.config.attn_pdrop == 0
    first, second = (json.loads(pair[1].backend_tokenizer.to_str())["model"] for pair in (gpt2, gpt2_reviews))
    assert first == second


def test_reading_long_input_is_cut_not_crashed(judge):
    assert 0 < praise(judge, ["I watched this film and the plot is gripping. " * 60])[0] < 1


def test_ordinary_pipelines(judge):
    both = judge("I loved every minute of it.")
    rows = both[0] if isinstance(both[0], list) else both
    assert {row["label"] for row in rows} == {"NEGATIVE", "POSITIVE"}
    assert sum(row["score"] for row in rows) == pytest.approx(1, abs=1e-4)
    writer = pipeline("text-generation", str(TINY / "gpt2-reviews"))
    text = writer("The director of this", max_new_tokens=20, do_sample=True)[0]["generated_text"]
    assert text.startswith("The director of this") and len(text) > 30


def test_samples_end_by_themselves(samples, gpt2_reviews):
    tokens, _ = samples
    ends = (tokens == gpt2_reviews[1].eos_token_id).any(dim=1).float().mean()
    assert ends > 0.9


def test_before_training_the_reward_is_about_a_half(samples, gpt2_reviews, judge):
    tokens, prompts = samples
    texts = [
        p + t for p, t in zip(prompts, gpt2_reviews[1].batch_decode(tokens[:, :32], skip_special_tokens=True))
    ]
    scores = torch.tensor(praise(judge, texts))
    assert 0.4 < scores.mean() < 0.6
    assert 0.25 < scores.std()
    assert len(set(texts)) / len(texts) > 0.95


def test_nothing_imports_the_build_script():
    readers = [path for path in (ROOT / "helpers").rglob("*.py") if path.name != "build_tiny.py"]
    readers += (ROOT / "notebooks").glob("*.ipynb")
    assert [path for path in readers if "build_tiny" in path.read_text("utf-8")] == []
    code = "import sys; from helpers.tiny import grammar; grammar.write_reviews(2, 0); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    from helpers.maintain import build_tiny as build

    class Broken:
        def save_pretrained(self, folder):
            (Path(folder) / "config.json").write_text("{}")
            raise OSError("disk full")

    class Good:
        def save_pretrained(self, folder):
            (Path(folder) / "config.json").write_text("new")

    monkeypatch.setattr(build, "TINY", tmp_path)
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "config.json").write_text("old")
    with pytest.raises(CourseError, match="disk full"):
        build.save("gpt2", Broken())
    assert (tmp_path / "gpt2" / "config.json").read_text() == "old"
    build.save("gpt2", Good())
    assert [path.name for path in tmp_path.iterdir()] == ["gpt2"]
    assert (tmp_path / "gpt2" / "config.json").read_text() == "new"
