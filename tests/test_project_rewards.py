"""A reward as one writes it: what each form pays, and what is refused before any training."""

import json
import random
import types

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from helpers import assets, engine
from helpers.errors import CourseError
from helpers.feedback import exchange, reward_model
from helpers.feedback.pairs import Pair
from helpers.feedback.ratings import Ratings
from helpers.feedback.simulated import SimulatedRater
from helpers.project import programs
from helpers.project.prompts import prompts_from, split_prompts
from helpers.project.rewards import reward_from
from helpers.rewards import load_reward, score
from helpers.tiny import TINY

JUDGE = str(TINY / "distilbert-reviews")
TEXTS = ["I loved it.", "It was dull and too long."]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder as the current one, and no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(assets, "hub_answers", lambda: False)


# ------------------------------------------------------------------------------------------- programs


@pytest.mark.parametrize(
    "spec, output, paid",
    [
        ("words>=3", " a film - so", 1),
        ("words>=4", " a film - so", 0),
        ("words <= 3", " a film so", 1),
        ("words==2", " a film so", 0),
        ("words>=1", "", 0),
        ("chars<=6", " a film\n", 1),
        ("chars<=5", " a film\n", 0),
        ("sentences==1", " is 3.5 stars. ", 1),
        ("sentences==1", ' is "good." So', 0),
        ("sentences==2", ' is "good." So', 1),
        ("sentences==1", " is good?!", 1),
        ("sentences==0", " ", 1),
        ("ends with .", " is good. ", 1),
        ("ends with .", " is good", 0),
        ('contains "FILM"', " of the films", 1),
        ("contains film", " of it", 0),
        ("starts with 'The'", " the film", 1),
        ("starts with film", " the film", 0),
        ('contains "', ' he said "so"', 1),
    ],
)
def test_a_program_pays_one_or_nothing_for_the_continuation(spec, output, paid):
    reward = reward_from(spec, "cpu")
    prompt = "I watched this film. The film"
    assert score(reward, [prompt + output], [prompt], [output]) == [paid]


def test_a_program_is_named_alike_however_it_is_spelled():
    assert programs.parse("words  >= 010").name == "words>=10"
    assert programs.parse('contains "film"').name == programs.parse("contains film").name
    reward = reward_from("words>=10", "cpu")
    assert reward.__doc__ == "It pays 1 where the continuation has at least 10 words, else 0."
    assert reward(["of one", "a " * 10]) == [0, 1]  # without outputs, the whole text


# ---------------------------------------------------------------------------------------- classifiers


def test_a_classifier_pays_the_probability_of_the_class():
    positive, negative = load_reward(JUDGE, "cpu")(TEXTS), reward_from(f"{JUDGE}:NEGATIVE", "cpu")(TEXTS)
    assert reward_from(JUDGE, "cpu")(TEXTS) == positive == reward_from(f" {JUDGE}:POSITIVE ", "cpu")(TEXTS)
    assert negative == pytest.approx([1 - p for p in positive], abs=1e-6)
    assert "P(NEGATIVE) of the text by the classifier distilbert-reviews" in (
        reward_from(f"{JUDGE}:NEGATIVE", "cpu").__doc__
    )


def test_a_folder_with_a_colon_in_its_name(tmp_path):
    AutoModelForSequenceClassification.from_pretrained(JUDGE).save_pretrained(tmp_path / "a:b")
    AutoTokenizer.from_pretrained(JUDGE).save_pretrained(tmp_path / "a:b")
    plain = reward_from(JUDGE, "cpu")(TEXTS)
    assert reward_from("a:b", "cpu")(TEXTS) == reward_from("a:b:POSITIVE", "cpu")(TEXTS) == plain


@pytest.fixture
def number_model(tmp_path):
    """A reward model as notebook 09 saves it, and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(TINY / "gpt2-reviews")
    torch.manual_seed(0)
    settings = dict(num_labels=1, pad_token_id=tokenizer.eos_token_id, dtype=torch.float32)
    model = AutoModelForSequenceClassification.from_pretrained(TINY / "gpt2-reviews", **settings).eval()
    model.save_pretrained(tmp_path / "number")
    tokenizer.save_pretrained(tmp_path / "number")
    return model, tokenizer


def test_a_reward_model_pays_the_number_that_it_gives(number_model):
    expected = reward_model.score_texts(*number_model, TEXTS).tolist()
    assert max(map(abs, expected)) > 0.01
    assert reward_from("number", "cpu")(TEXTS) == pytest.approx(expected, abs=1e-6)
    assert reward_from("2*number:LABEL_0", "cpu")(TEXTS) == pytest.approx([2 * x for x in expected], abs=1e-6)


# ------------------------------------------------------------------------------------------ functions


def write(name, text):
    with open(name, "w", encoding="utf-8") as file:
        file.write(text)
    return name


def test_a_function_of_the_readers_own_with_what_lies_beside_it(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    write(folder / "my_words.py", "GOOD = ['loved']\n")
    source = (
        "import my_words\n\n\ndef reward(texts):\n    '''How many good words.\n\n    More.'''\n"
        "    return [float(any(word in text for word in my_words.GOOD)) for text in texts]\n"
    )
    write(folder / "r.py", source)
    reward = reward_from("mine/r.py:reward", "cpu")
    assert reward(TEXTS) == [1, 0] and reward.parts == ["r.py:reward"]
    assert reward.__doc__ == "It pays what reward in r.py returns (How many good words)."
    write(folder / "r.py", source.replace("float(any", "2 * float(any"))  # the same second, and read anew
    assert reward_from("mine/r.py:reward", "cpu")(TEXTS) == [2, 0]


def test_a_function_that_asks_for_a_column_is_left_for_the_run_to_try():
    write(
        "r.py",
        "def reward(outputs, answer, tokenizer):\n    return [float(a in o) for a, o in zip(answer, outputs)]\n",
    )
    reward = reward_from("r.py:reward", "cpu")
    given = dict(answer=["42", "7"], tokenizer=None)
    assert score(reward, ["a 42", "b 42"], ["a", "b"], [" 42", " 42"], **given) == [1, 0]


def test_a_function_may_pay_each_token_where_it_is_alone():
    write("r.py", "def reward(outputs):\n    return [[1.0] * len(o.split()) for o in outputs]\n")
    reward = reward_from("0.5*r.py:reward", "cpu")
    assert score(reward, ["a b c"], ["a"], [" b c"]) == [[0.5, 0.5]]
    with pytest.raises(CourseError, match="r.py:reward gives a number for each token"):
        reward_from(["r.py:reward", "words>=3"], "cpu")


def test_an_error_of_the_function_in_the_middle_names_its_line():
    write(
        "r.py",
        "def reward(samples):\n    x = [1.0 for s in samples]\n    return x if 'bad' not in samples else {}['x']\n",
    )
    reward = reward_from("r.py:reward", "cpu")
    with pytest.raises(CourseError, match=r"r\.py, line 3: the function reward failed: KeyError: 'x'\."):
        reward(["bad"])


# ---------------------------------------------------------------------------------------------- sums


def test_a_sum_pays_its_parts_weighted_and_the_metrics_add_up_to_it():
    reward = reward_from([f"0.7*{JUDGE}:POSITIVE", "-.2 * words>=4", "ends with ."], "cpu")
    prompts, outputs = ["I loved", "It was"], [" it.", " dull and too long"]
    samples = [p + o for p, o in zip(prompts, outputs)]
    total = score(reward, samples, prompts, outputs)
    positive = load_reward(JUDGE, "cpu")(samples)
    assert total == pytest.approx([0.7 * positive[0] + 1, 0.7 * positive[1] - 0.2])
    parts = reward.metric_fn(samples=samples, prompts=prompts, outputs=outputs)
    assert list(parts) == reward.parts == ["0.7*distilbert-reviews:POSITIVE", "-0.2*words>=4", "ends with ."]
    assert [sum(each) for each in zip(*parts.values())] == total
    assert "; -0.2 times 1 where the continuation has at least 4 words, else 0; 1 where" in reward.__doc__
    assert reward_from("words>=4", "cpu").metric_fn is None


def test_an_evaluation_judges_each_text_once():
    """The metrics are of the texts that were just rewarded; a reward that draws at random would otherwise not add up."""
    write(
        "r.py",
        "import itertools\ncount = itertools.count()\n\n\ndef reward(samples):\n    return [float(next(count)) for _ in samples]\n",
    )
    reward = reward_from(["r.py:reward", "words>=1"], "cpu")
    total = reward(["a", "b"])
    assert reward.metric_fn(["a", "b"])["r.py:reward"] == [x - 1 for x in total]
    assert reward.metric_fn(["a", "c"])["r.py:reward"] != [x - 1 for x in total]


# ------------------------------------------------------------------------------------------- ratings


def rated(count, prompts=10**6):
    """`count` preferences for texts that say good."""
    chance = random.Random(0)
    pairs = [
        Pair(f"Film {n % prompts}", *sorted([f" was good {word} {n}", f" was bad {word} {n}"]))
        for n in range(count)
        for word in [chance.choice(["indeed", "again", "too"])]
    ]
    return SimulatedRater(lambda texts: [float("good" in t) for t in texts], error_rate=0).rate(pairs)


def written_ratings(ratings, path="r.jsonl"):
    file = Ratings(path)
    for rating in ratings:
        file.add(rating)
    return path


def test_ratings_become_a_reward_model_that_is_tested_and_normalised(capsys):
    ratings = rated(40)
    reward = reward_from(written_ratings(ratings), "cpu")
    assert "fitted to 32 preferences in r.jsonl is right on 100% of 8 held-out preferences, 95%" in (
        capsys.readouterr().out
    )
    good, bad = reward(["Film 3 was good again", "Film 3 was bad again"])
    assert good > 0.5 and bad < -0.5
    texts = [r.pair.prompt + text for r in ratings for text in (r.pair.first, r.pair.second)]
    rewards = torch.tensor(reward(texts))
    assert rewards.mean().item() == pytest.approx(0, abs=1e-4) and rewards.std().item() == pytest.approx(
        1, abs=1e-4
    )
    exchange.export_pairs(ratings, "e.jsonl")
    assert [(r.pair, r.choice) for r in exchange.read_ratings("e.jsonl")] == [
        (r.pair, r.choice) for r in ratings
    ]
    again = reward_from("e.jsonl", "cpu")(TEXTS)
    assert again == pytest.approx(reward(TEXTS), abs=1e-4)  # and the same once more, so a run can be resumed


@pytest.mark.parametrize("prompts, unit", [(20, "prompt"), (1, "id")])
def test_no_prompt_is_in_both_parts_of_the_ratings(prompts, unit):
    ratings = rated(60, prompts)
    parts = [{getattr(r.pair, unit) for r in part} for part in reward_model.split(ratings)]
    assert not parts[0] & parts[1] and sum(map(len, reward_model.split(ratings))) == 60
    assert 12 <= len(reward_model.split(ratings)[1]) <= 15


def test_a_pair_that_was_rated_twice_counts_once(monkeypatch):
    ratings = rated(30)
    seen = []
    monkeypatch.setattr(reward_model, "split", lambda given: seen.append(given) or (given, given))
    monkeypatch.setattr(reward_model, "fit", lambda *_: 1 / 0)
    other = [types.SimpleNamespace(**vars(r) | {"id": "x" + r.id, "choice": "tie"}) for r in ratings[:5]]
    with pytest.raises(ZeroDivisionError):
        reward_model.fit_and_test([*ratings, *other], "", "cpu")
    assert seen == [ratings]


def test_the_fit_is_notebook_09s():
    """The same loss, and the same weights that learn."""
    first, second, target = torch.randn(3, 50)
    target = target.sigmoid()
    margin = first - second
    by_hand = -(target * margin.sigmoid().log() + (1 - target) * (-margin).sigmoid().log()).mean()
    assert reward_model.preference_loss(first, second, target).item() == pytest.approx(
        by_hand.item(), abs=1e-6
    )
    state = torch.get_rng_state()
    model, _ = reward_model.fit(reward_model.training_data(rated(4)), str(TINY / "gpt2-reviews"), "cpu")
    assert torch.equal(torch.get_rng_state(), state)
    learning = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert (
        "score" in learning and "transformer.h.3.ln_1" in learning and "transformer.h.1.ln_1" not in learning
    )


# ------------------------------------------------------------------------------------- what is refused

FILES = {
    "r.py": "def reward(samples):\n    return [1.0] * len(samples)\n\n\nNUMBER = 3\n",
    "syntax.py": "x = 1\ndef reward(samples)\n    return 1\n",
    "raises.py": "x = 1\n\nprint(1 / 0)\n",
    "exits.py": "import sys\nsys.exit('no')\n",
    "imports.py": "import no_such_package_at_all\n",
    "none.py": "def reward(samples):\n    x = 1\n",
    "short.py": "def reward(samples):\n    return [1.0]\n",
    "nan.py": "def reward(samples):\n    return [float('nan') for _ in samples]\n",
    "text.py": "def reward(samples):\n    return ['good' for _ in samples]\n",
    "mean.py": "def reward(outputs):\n    return [o.count('o') / len(o) for o in outputs]\n",
    "null.py": "x = 1\0\n",
    "prompts.jsonl": '{"prompt": "The plot"}\n',
    "empty.jsonl": "",
    "few.csv": "prompt,chosen,rejected\nSo, good, bad\n",
    "notes.txt": "The plot\nSo\n",
    "one.txt": "The plot\n",
    "wrong.csv": "review\nThe plot\n",
    "zip.txt": "PK\x03\x04",
}

REWARDS = {
    "": "is empty",
    "0*words>=3": "has the weight 0",
    "1e999*words>=3": "not infinite",
    "2*": "has a weight and nothing else",
    "words": "Put it in quotation marks, --reward 'words>=10'",
    "wrods>=3": "is no program. Did you mean words?",
    "words=>3": "is no program. A program is words, chars or sentences, then >=, <= or ==",
    "words>=3.5": "is no program",
    "words>=3 and chars<=9": "is no program",
    "end with .": "is no program. Did you mean ends with?",
    'contains ""': "is no program",
    "lambda s: 1 == 1": "is no program",
    "no/such/folder": "there is no folder 'no/such/folder'",
    "~/nothing-here:POSITIVE": "there is no folder",
    "C:\\models\\judge": "there is no folder 'C:\\\\models\\\\judge'",
    "C:\\models\\judge:POSITIVE": "there is no folder 'C:\\\\models\\\\judge'",
    "owner/name": "there is no folder of this name. A model would come from huggingface.co, which does not answer",
    "owner/name:LABEL_1": "there is no folder of this name",
    "notes.txt": "Expected a classifier's folder",
    f"{JUDGE}:POSITVE": f"has no class 'POSITVE'. It has 'NEGATIVE', 'POSITIVE'. Did you mean {JUDGE}:POSITIVE?",
    f"{JUDGE}:joy": f"Name one, such as {JUDGE}:NEGATIVE",
    str(TINY / "gpt2-reviews"): "it lacks weights of a GPT2ForSequenceClassification",
    "r.py": "names no function in that file. Expected FILE.py:FUNCTION",
    "r.py:rewrad": "r.py has no function 'rewrad'. It has reward. Did you mean r.py:reward?",
    "r.py:NUMBER": "has 'NUMBER', which is no function",
    "gone.py:reward": "the reward function in gone.py cannot be read: No such file",
    "syntax.py:reward": "syntax.py, line 2: the reward function's file failed: SyntaxError",
    "raises.py:reward": "raises.py, line 3: the reward function's file failed: ZeroDivisionError",
    "exits.py:reward": "exits.py, line 2: the reward function's file failed: SystemExit: no",
    "imports.py:reward": "imports.py, line 1: the reward function's file failed: ModuleNotFoundError",
    "null.py:reward": "null.py",
    "none.py:reward": "is a `return` missing?",
    "short.py:reward": "returned 1 rewards for 2 samples",
    "nan.py:reward": "the reward of sample 0 is nan",
    "text.py:reward": "the reward of sample 0 is 'good'",
    "mean.py:reward": "line 2: the function reward failed: ZeroDivisionError: division by zero. It was tried on two samples",
    "gone.jsonl": "the ratings in gone.jsonl cannot be read",
    "prompts.jsonl": "line 1: lacks 'chosen'",
    "empty.jsonl": "holds no preference",
    "few.csv": "few.csv: preferences: 1 (ties, skips and pairs that come again are none), and at least 25 are needed",
}  # fmt: skip

PROMPTS = {
    "gone.txt": "the prompts in gone.txt cannot be read: No such file",
    "one.txt": "one.txt has 1 prompt: at least 2 are needed",
    "wrong.csv": "Expected one called prompt or text",
    "zip.txt": "is no text but a zip archive",
    "r.py": "its ending is '.py'",
    ".": "it is a folder",
    "no/such/file": "there is no such file. Expected a file (.txt,",
    "C:\\prompts": "there is no such file. Expected a file",
    "The plot of this film": "there is no such file",
    "owner/name:text": "would come from huggingface.co, which does not answer",
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    for name, text in FILES.items():
        write(folder / name, text)
    return folder


@pytest.mark.parametrize("spec", REWARDS)
def test_a_reward_that_cannot_be_used_is_one_message(spec, bad_files, monkeypatch):
    monkeypatch.chdir(bad_files)
    with pytest.raises(CourseError) as error:
        reward_from(spec, "cpu")
    assert REWARDS[spec] in str(error.value)


@pytest.mark.parametrize("source", PROMPTS)
def test_prompts_that_cannot_be_used_are_one_message(source, bad_files, monkeypatch):
    monkeypatch.chdir(bad_files)
    with pytest.raises(CourseError) as error:
        split_prompts(source)
    assert PROMPTS[source] in str(error.value)


def test_all_are_read_before_the_first_is_loaded(monkeypatch):
    with pytest.raises(CourseError, match="'wrods>=3' is no program"):
        reward_from(["gone.py:reward", "wrods>=3"], "cpu")
    with pytest.raises(CourseError, match="words>=3 is given twice"):
        reward_from(["words>=3", "2*words >= 3"], "cpu")
    with pytest.raises(CourseError, match="no reward is given"):
        reward_from([], "cpu")


# ------------------------------------------------------------------------------------- data sets


@pytest.fixture
def imdb(tmp_path, monkeypatch):
    """RLHF_ASSETS with reviews in it."""
    from common import write_reviews

    write_reviews(tmp_path / "assets" / assets.REVIEWS_PART)
    monkeypatch.setenv("RLHF_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setattr(assets, "check_assets", lambda folder: folder)


def test_a_data_set_out_of_the_assets_with_its_other_columns(imdb):
    assert prompts_from("stanfordnlp/imdb:text") == [{"prompt": "Bad.", "label": 0}] * 3
    assert prompts_from("stanfordnlp/imdb") == prompts_from("stanfordnlp/imdb:text")
    with pytest.raises(
        CourseError, match="has no column 'txt'. It has text, label. Did you mean stanfordnlp/imdb:text"
    ):
        prompts_from("stanfordnlp/imdb:txt")
    with pytest.raises(CourseError, match="row 1: 'prompt' is 0. Expected a text"):
        prompts_from("stanfordnlp/imdb:label")


# ---------------------------------------------------------------------------------- in a whole run


@pytest.mark.parametrize("which", ["builtin", "trlx"])
def test_a_sum_trains_and_its_parts_are_in_the_history(tmp_path, monkeypatch, which):
    from common import TRLX_COMMAND
    from ppo_run import PROMPTS as TEXTS_TO_CONTINUE
    from ppo_run import small_config

    from helpers.real_trlx import install

    if which == "trlx" and not install.installed():
        pytest.skip(f"trlX is not installed here: {TRLX_COMMAND}")
    monkeypatch.setenv("RLHF_ENGINE", which)
    write("r.py", "def reward(outputs, n):\n    return [o.count('e') / i for o, i in zip(outputs, n)]\n")
    reward = reward_from(["r.py:reward", "0.5*words>=6", JUDGE], "cpu")
    prompts = [{"prompt": text, "n": n + 1} for n, text in enumerate(TEXTS_TO_CONTINUE)]
    given = dict(reward_fn=reward, metric_fn=reward.metric_fn, prompts=prompts, eval_prompts=prompts)
    trainer = engine.train(config=small_config(tmp_path / "checkpoints"), **given)
    assert trainer.step == 8
    for row in trainer.history.evals:
        assert sum(row[f"metrics/{name}"] for name in reward.parts) == pytest.approx(
            row["reward/mean"], abs=1e-5
        )
    assert json.dumps(vars(trainer.history))


def test_the_first_words_of_whole_texts_are_prompts(tmp_path):
    texts = ["One two  three four", "one two<br />three", "One two three five", "short one", "a b c"]
    path = write(tmp_path / "reviews.jsonl", "\n".join(json.dumps({"text": text, "id": 1}) for text in texts))
    prompts, held_out = split_prompts(str(path), words=3)
    assert [*prompts, *held_out] == ["One two three", "one two three", "a b c"]
    with pytest.raises(CourseError, match="expected 1 or more"):
        split_prompts(str(path), words=0)
    with pytest.raises(CourseError, match="at least 2 are needed"):
        split_prompts(str(path), words=9)
