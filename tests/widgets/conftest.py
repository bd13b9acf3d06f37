"""The widgets' tests need ipywidgets and no torch: they run on ipywidgets 7.7 (Colab) and 8, with every warning an error."""

import pytest

HOSTILE = [
    "<img src=x onerror=\"document.title='hacked'\">",
    "<script>document.title='hacked'</script>",
    "\"><svg onload=document.title='hacked'>",
    "word " * 5000,
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "emoji \U0001f3ac\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "NUL \x00 and bell \x07",
    r"costs $5 and $7, \(x\), \[y\], $$z$$, \begin{equation}e\end{equation}, \ref{f}, \$, \\ and \href{javascript:alert(1)}{g}",
    "half a pair \ud83c and the other half \udfac",
    "",
]


@pytest.fixture(params=HOSTILE, ids=lambda text: repr(text[:12]))
def hostile(request):
    """A text that tries to run, to break the page, or to turn it round."""
    return request.param


@pytest.fixture(autouse=True)
def warnings_are_errors(recwarn):
    """An argument that ipywidgets does not know only warns; here it fails."""
    yield
    ours = [w for w in recwarn if issubclass(w.category, (DeprecationWarning, UserWarning))]
    assert not ours, [str(w.message) for w in ours]
