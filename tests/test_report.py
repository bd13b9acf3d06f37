"""The report and the model card of a real run: what is in them, that nothing in them runs or is fetched, and what they leave alone.

What a browser makes of the report is in browser/test_report_page.py.
"""

import contextlib
import inspect
import io
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
from huggingface_hub import ModelCard
from ppo_run import PROMPTS, small_config, small_run
from report_run import HALF, HOSTILE, WORDS, compare_run
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers import compare, palette
from helpers.errors import CourseError
from helpers.project.card import check_card, write_card
from helpers.project.report import strips, write_report
from helpers.seal import check_own
from helpers.verdict import verdict


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    """A run of each engine, and its texts before and after."""
    trainer = small_run(tmp_path_factory.mktemp("run"))
    return trainer, compare_run(trainer)


class Page(HTMLParser):
    """What a page holds: its elements with their attributes, and its texts, those of pictures and scripts apart."""

    def __init__(self, markup):
        super().__init__()
        self.elements, self.open, self.texts = [], [], []
        self.feed(markup)

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in ("meta", "wbr"):
            self.open.append(name)

    def handle_startendtag(self, name, attributes):
        self.elements.append((name, dict(attributes)))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if not {"svg", "script", "style"} & set(self.open):
            self.texts.append(data)

    def text(self):
        return "".join(self.texts)


def read(path):
    return Page(path.read_text(encoding="utf-8"))


def without_times(path):
    return path.read_text(encoding="utf-8").partition('<footer id="times">')[0]


def test_the_report_says_what_the_run_did(run, tmp_path):
    trainer, table = run
    page = read(write_report(trainer, table, tmp_path / "new" / "report.html", **WORDS))
    text = page.text()
    before, after = table["reward_before"].mean(), table["reward_after"].mean()
    assert f"from {before:.2f} to {after:.2f} ({compare.mean_gain(table):+.2f})" in text
    assert f"a KL of {trainer.history.evals[-1]['kl']:.1f} nats" in text
    assert f"{compare.win_rate(table):.0%}" in text
    for line in verdict(trainer.history):
        assert line.split(":", 1)[1].strip() in text
    badges = ["✓ ok" if line.startswith("ok:") else "▲ look" for line in verdict(trainer.history)]
    assert re.findall("✓ ok|▲ look", text) == badges
    for words in (
        "gpt2-reviews, tuned with PPO",
        WORDS["reward"],
        WORDS["prompts"],
        trainer.engine,
        WORDS["repeat"],
    ):
        assert words in text
    assert "5 to train on, 5 held out" in text and "8 of 8" in text
    for row in table.to_dict("records"):
        assert row["before"] in text and row["after"] in text
    pictures = [attributes for name, attributes in page.elements if name == "svg"]
    assert len(pictures) == 4
    rewards = [row["reward/mean"] for row in trainer.history.evals]
    assert all(picture["role"] == "img" for picture in pictures)
    assert (
        f"held-out prompts from {rewards[0]:.3g} at 0 to {rewards[-1]:.3g} at 8" in pictures[0]["aria-label"]
    )


def test_the_strips_share_one_scale_and_the_report_has_their_look(run, tmp_path):
    trainer, table = run
    moves = [[("a", 0.5), ("b", -0.001)], [("c", -2.0), ("d", 1.0)], *([[("e", 0.0)]] * (len(table) - 2))]
    shown = strips(table, moves)
    strengths = [int(strength, 16) for strength in re.findall(r"background:#\w{6}(\w\w)", shown)][:4]
    assert strengths == [150, 75, 38, 0]  # the sample in which one token moved most comes first
    assert "KL \N{MINUS SIGN}1.00 nats" in shown and ">\N{MINUS SIGN}0.00<" not in shown
    page = write_report(trainer, table, tmp_path / "report.html", **WORDS).read_text(encoding="utf-8")
    used = set(re.findall(r'class="(rlhf-[\w-]+)', page)) | {"rlhf-names"}
    assert "rlhf-piece" in used and all(f".{name} {{" in page for name in used)


def test_the_settings_that_differ_come_first(run, tmp_path):
    trainer, table = run
    text = read(write_report(trainer, table, tmp_path / "report.html", **WORDS)).text()
    first, _, others = text.partition("more that are at their default")
    for name, value in [
        ("method.num_rollouts", "16"),
        ("train.batch_size", "8"),
        ("model.num_layers_unfrozen", "2"),
    ]:
        (others if name.startswith("model") else first).index(f"{name}{value}")
    for section, values in small_config(tmp_path).to_dict().items():
        for name in values:
            shown = f"{section}.{name}" in text
            assert shown is (name != "resume_from_checkpoint"), name
    assert "CourseTrainer" not in text  # how the course has trlX call it


def test_a_run_that_was_resumed_has_the_same_report(engine, tmp_path):
    folder, reports = tmp_path / "run", []
    for resume in (None, str(folder)):
        trainer = small_run(folder, changes=dict(train=dict(resume_from_checkpoint=resume)))
        reports.append(
            write_report(trainer, compare_run(trainer, PROMPTS), tmp_path / f"{resume is None}.html", **WORDS)
        )
        shutil.rmtree(folder / "checkpoint_8")  # as a run killed after step 4 leaves it
    assert without_times(reports[0]) == without_times(reports[1])
    assert "Written" not in without_times(reports[0])


def test_groups_have_a_report_too(tmp_path):
    """RLOO has no value head, and its tokens' KL is shown all the same."""
    method = dict(name="RLOOConfig", group_size=4)
    trainer = small_run(tmp_path / "run", changes=dict(method=method))
    table = compare_run(trainer, PROMPTS)
    text = read(write_report(trainer, table, tmp_path / "report.html", **WORDS)).text()
    assert "gpt2-reviews, tuned with RLOO" in text and "no interval: 5 of the 20 prompts" in text
    largest = max((abs(kl), kl) for tokens in compare.token_kl(trainer, table) for _, kl in tokens)[1]
    assert f"{largest:.2f}".replace("-", "\N{MINUS SIGN}") in text


def test_each_token_has_the_kl_that_the_explorer_shows(run):
    trainer, table = run
    view = compare.token_view(trainer, table)
    assert compare.token_kl(trainer, table) == [[token[:2] for token in row["tokens"]] for row in view]


def test_texts_in_the_report_are_texts(run, tmp_path):
    trainer, table = run
    table = table[: len(HOSTILE)].assign(before=HOSTILE, after=HOSTILE, prompt=HOSTILE)
    words = {name: " ".join([*HOSTILE, HALF]) for name in WORDS}  # a table takes no half of a pair
    page = read(write_report(trainer, table, tmp_path / "report.html", **words))
    assert [name for name, _ in page.elements].count("script") == 1 and page.open == []
    for name, attributes in page.elements:
        assert name not in ("img", "iframe", "link", "object", "base"), name
        assert not [key for key in attributes if key.startswith("on") or key in ("src", "srcset")], attributes
        assert all(attributes[key].startswith("#") for key in attributes if key.endswith("href"))
    for text in HOSTILE[:4]:
        assert page.text().count(text) >= 3
    assert "NUL ␀, bell ␇, {braces} and %BLUE%" in page.text()
    assert not re.search("[\x00-\x08\u202a-\u202e]", page.text())


def test_the_report_names_no_address_that_could_be_fetched(run, tmp_path):
    markup = without_times(write_report(*run, tmp_path / "report.html", **WORDS))
    names = {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }  # of kinds of elements, not of places
    assert set(re.findall(r"\w+://[^\s\"'<]+", markup)) == names
    assert "@import" not in markup and all(
        found.startswith("url(#") for found in re.findall(r"url\(..", markup)
    )
    policy = dict(read(tmp_path / "report.html").elements[3:4])["meta"]["content"]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-")


def test_the_curves_have_the_pages_colours(run, tmp_path):
    """Else they would be dark on a dark page."""
    markup = without_times(write_report(*run, tmp_path / "report.html", **WORDS))
    pictures = "".join(re.findall("<svg.*?</svg>", markup, re.DOTALL))
    assert set(re.findall("#[0-9a-fA-F]{6}\\b", pictures)) == set()
    for colour in (palette.BLUE, palette.ORANGE, palette.GREEN, palette.SKY, palette.AMBER):
        assert colour in markup
    names = re.findall(' id="([^"]+)"', markup)
    assert len(names) == len(set(names))


def test_a_report_replaces_only_a_report(run, tmp_path):
    path = write_report(*run, tmp_path / "report.html", **WORDS)
    write_report(*run, path, **WORDS)
    markup = path.read_text(encoding="utf-8")
    for other in ("mine", markup.replace("</h1>", "!</h1>"), markup + "mine", ""):
        path.write_text(other, encoding="utf-8")
        with pytest.raises(CourseError, match="is left as it is: move it away"):
            write_report(*run, path, **WORDS)
        assert path.read_text(encoding="utf-8") == other
    (tmp_path / "folder").mkdir()
    with pytest.raises(CourseError, match="is left as it is"):
        check_own(tmp_path / "folder")


def test_a_run_without_an_evaluation_or_samples_is_refused(run, tmp_path, monkeypatch):
    trainer, table = run
    for write, place in [(write_report, tmp_path / "report.html"), (write_card, tmp_path)]:
        with pytest.raises(CourseError, match="no samples were compared"):
            write(trainer, table[:0], place, **WORDS)
        with monkeypatch.context() as patch:
            patch.setattr(trainer.history, "evals", [])
            with pytest.raises(CourseError, match="no evaluation yet"):
                write(trainer, table, place, **WORDS)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def model_folder(run, tmp_path):
    return run[0].save_pretrained(tmp_path / "model")


def code_in(card):
    return re.findall("```python\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)


def test_the_card_is_what_the_hub_reads_and_says_what_the_run_did(run, model_folder):
    trainer, table = run
    path = write_card(*run, model_folder, **WORDS)
    card = ModelCard.load(path)
    assert card.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rlhf", "ppo"],
    }
    for words in (
        "| base model | gpt2-reviews |",
        f"{compare.mean_gain(table):+.2f}",
        f"{compare.win_rate(table):.0%}",
        trainer.engine,
        "texts that please it need not please people",
        *(f"    {line}" for line in WORDS["repeat"].splitlines()),
    ):
        assert words in card.text
    assert str(trainer.config.model.model_path) not in card.text  # a place on this machine alone
    assert path == model_folder / "README.md"


def test_the_header_has_what_is_known(run, model_folder, monkeypatch):
    monkeypatch.setattr(run[0].config.model, "model_path", "lvwerra/gpt2-imdb")
    path = write_card(*run, model_folder, **WORDS, language="en", license="mit")
    data = ModelCard.load(path).data
    assert (data.base_model, data.language, data.license) == ("lvwerra/gpt2-imdb", "en", "mit")


def test_the_cards_code_loads_the_model(run, model_folder, monkeypatch):
    trainer, table = run
    loading, publishing = code_in(write_card(*run, model_folder, **WORDS))
    monkeypatch.chdir(model_folder)
    found, said = {}, io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(loading, found)
    assert said.getvalue().startswith(table["prompt"][0])
    for (name, new), (_, old) in zip(found["model"].named_parameters(), trainer.model.named_parameters()):
        assert new.equal(old), name
    assert found["tokens"].shape[1] - found["prompt"]["input_ids"].shape[1] <= 8
    compile(publishing, "card", "exec")
    for kind in (AutoModelForCausalLM.from_pretrained(".").push_to_hub, ModelCard.push_to_hub):
        assert "repo_id" in inspect.signature(kind).parameters
    assert callable(AutoTokenizer.from_pretrained(".").push_to_hub)


def test_a_readme_that_is_not_ours_stays(run, model_folder):
    readme = model_folder / "README.md"
    write_card(*run, model_folder, **WORDS)
    write_card(*run, model_folder, **WORDS)  # ours
    for other in ("# Mine\n", readme.read_text(encoding="utf-8").replace("## Limits", "## My limits")):
        readme.write_text(other, encoding="utf-8")
        with pytest.raises(CourseError, match="README.md is there and is not as the course wrote it"):
            check_card(model_folder)
        with pytest.raises(CourseError, match="README.md is there"):
            write_card(*run, model_folder, **WORDS)
        assert readme.read_text(encoding="utf-8") == other


def test_a_card_needs_a_model(run, tmp_path):
    with pytest.raises(CourseError, match="holds no model"):
        write_card(*run, tmp_path, **WORDS)
    assert not list(tmp_path.iterdir())


def test_words_in_the_card_cannot_leave_their_place(run, model_folder):
    words = {name: "a | b\n---\n# c ```\n" + HALF for name in WORDS}
    card = ModelCard.load(write_card(*run, model_folder, **words))
    assert "| reward | a \\| b --- # c ``` " in card.text
    assert not [line for line in card.text.splitlines() if line in ("---", "# c ```")]
    assert json.loads(json.dumps(card.data.to_dict()))["tags"] == ["rlhf", "ppo"]
