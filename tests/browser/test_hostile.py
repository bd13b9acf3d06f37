"""Texts that try to run, to break the page, to turn it round or to be typeset, through every widget, every static double and a
live run, in both front ends."""

from in_page import write_notebook

FORMULAS = r"costs $5 and $7, \(x\), \[y\], $$z$$, \begin{equation}e\end{equation}, \ref{f}, \$, \\, \href{javascript:alert(1)}{g}"
TEXTS = [
    "<img src=x onerror=\"document.title='hacked'\">",
    "<script>document.title='hacked'</script>",
    "\"><svg onload=document.title='hacked'>",
    FORMULAS,
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "emoji \U0001f3ac\U0001f468\u200d\U0001f469\u200d\U0001f467, NUL \x00 and bell \x07",
    "longword" * 500,
]
ALL = " ".join(TEXTS)

SETUP = f"""
import sys, tempfile
sys.path.insert(0, "..")
texts, every = {TEXTS!r}, {ALL!r}
def reward_fn(samples, **kwargs):
    return [float(len(sample) % 7) for sample in samples]
reward_fn.__name__ = every
"""
INSPECTOR = """
from helpers.widgets.inspector import Challenge, RewardInspector
met = Challenge(every, lambda text, rewards: True)
RewardInspector({every: reward_fn, "other": reward_fn}, lambda text: {every: 0.5}, {reward_fn: 1.0}, {texts[3]: texts}, [met]).view
"""
PROMPTS = """
from helpers.widgets.prompts import PromptBrowser
PromptBrowser(texts, lambda prompts: [[prompt, every] for prompt in prompts], lambda prompts, *_: texts, reward_fn).view
"""
EXPLORER = """
from helpers.widgets.samples import SampleExplorer
tokens = [(text, 0.5, -0.5) for text in texts]
rewards = dict(reward_before=0.1, reward_after=0.9)
SampleExplorer([dict(prompt=text, before=every, after=text, tokens=tokens, **rewards) for text in texts]).view
"""
KL_LAB = """
from helpers.widgets.kl_lab import KLLab
runs = [dict(beta=beta, step=step, reward=0.5, kl=1.0 * step) for beta in (0, 1) for step in (0, 1)]
KLLab(runs, [dict(beta=beta, prompt=text, output=every, reward=0.5) for beta in (0, 1) for text in texts]).view
"""
LABELLER = """
from helpers.feedback.pairs import Pair
from helpers.feedback.ratings import Ratings
from helpers.widgets.labeller import PreferenceLabeller
pairs = [Pair(text, every, text) for text in texts]
PreferenceLabeller(pairs, Ratings(tempfile.mkdtemp() + "/r.jsonl"), rater=every).view
"""
MONITOR = """
from helpers import course
from helpers import engine as trlx
here = course.start()
model = here.finetuned_model
config = trlx.default_ppo_config().evolve(
    model=dict(model_path=model), tokenizer=dict(tokenizer_path=model),
    train=dict(total_steps=2, seq_length=1024, batch_size=4, checkpoint_dir=tempfile.mkdtemp(), save_best=False),
    method=dict(num_rollouts=4, chunk_size=4, gen_kwargs=dict(max_new_tokens=4)),
)
trainer = trlx.train(reward_fn=reward_fn, prompts=texts[:5], eval_prompts=texts[:5], config=config)
"""


# Without what MathJax does to this, a page on which it does nothing to our texts would prove nothing.
CONTROL = r"""
from IPython.display import HTML, display
display(HTML(r"<p class='control'>$x^2$ and \(y\)</p>"))
"""
COPY = """() => {
    const shown = Array.from(document.querySelectorAll('td bdi')).find(bdi => bdi.textContent.startsWith('costs $5'));
    getSelection().selectAllChildren(shown);
    return getSelection().toString();
}"""
TYPESET = "mjx-container, .MathJax, .MathJax_Preview, .MathJax_Display, script[type^='math/']"


def unharmed(page) -> bool:
    """Nothing ran, and no text became an element or a formula."""
    made = "[src='x'], .jupyter-widgets script, [onload], [onerror]"
    formulas = page.locator(TYPESET).count() - page.locator(".control").locator(TYPESET).count()
    return "hacked" not in page.title() and page.locator(made).count() == formulas == 0


def test_hostile_texts(open_notebook, screenshot, server):
    _, _, course = server
    static = [
        source.replace(".view", ".static()") for source in (INSPECTOR, PROMPTS, EXPLORER, KL_LAB, LABELLER)
    ]
    # the static doubles first: the tests' reader works with what comes last on the page
    sources = [SETUP, CONTROL, *static, INSPECTOR, PROMPTS, EXPLORER, KL_LAB, LABELLER, MONITOR]
    write_notebook(course / "notebooks" / "hostile.ipynb", sources)
    reader = open_notebook("hostile.ipynb")
    reader.run_all()
    reader.wait_for_text("2 steps in")
    for number in range(2):
        reader.page.locator(".control").locator("mjx-container, span.MathJax").nth(number).wait_for(
            timeout=60_000
        )
    reader.page.wait_for_timeout(2000)  # MathJax takes one output after the other
    assert unharmed(reader.page)
    for name in (
        "Words that moved it",
        "Sample",
        "Next",
        "largest gain",
        "Larger beta",
        "Left is better (1)",
    ):
        reader.press("button", name)
        reader.page.wait_for_timeout(500)
        assert unharmed(reader.page), name
        screenshot(reader, name.replace(" ", "_"))
    for role, name in [
        ("textbox", "Text"),
        ("textbox", "Filter"),
        ("textbox", "Rater"),
        ("textbox", "Reason (optional)"),
    ]:
        reader.type(name, ALL.replace("\x00", "").replace("\x07", ""), role=role)
        reader.page.wait_for_timeout(500)
        assert unharmed(reader.page), name
    shown = reader.shown()
    for text in TEXTS[:4]:  # as a text, where each widget shows its texts
        assert shown.count(text) > 10, text
    assert FORMULAS in reader.page.evaluate(COPY), "copied as it is"
    assert "Traceback" not in reader.page.inner_text("body")
