"""Methods as text: reading, canonical form, errors."""

import pytest

from sparseprune import scores, select
from sparseprune.methods import SELECTS, Method, expand


def test_plain_names_take_the_defaults():
    method = Method.parse("snip/threshold")
    assert (method.score, method.select) == (scores.SNIP(), select.Threshold())
    assert (method.arguments, method.scale, str(method)) == ({}, "fold", "snip/threshold")


def test_options_go_where_they_belong():
    method = Method.parse("synflow(inputs=chi, iterations=3)/multinomial(scale=keep, rescale=False, at='each')")
    assert method.score == scores.SynFlow()
    assert method.select == select.Multinomial(rescale=False)
    assert method.arguments == {"inputs": "chi", "iterations": 3, "select_at": "each"}
    assert method.scale == "keep"
    assert str(method) == "synflow(inputs=chi,iterations=3)/multinomial(at=each,rescale=False,scale=keep)"


def test_the_text_is_canonical():
    text = "grasp( temperature=200., mode='train' ) / priority(at=end,scale=fold)"
    assert str(Method.parse(text)) == "grasp(mode=train)/priority"
    assert str(Method.parse(str(Method.parse(text)))) == "grasp(mode=train)/priority"


def test_methods_of_one_score_share_its_ranking_unless_they_select_at_each_iteration():
    assert Method.parse("synflow(inputs=chi)/poisson").ranking == "synflow(inputs=chi)"
    each = Method.parse("synflow/poisson(at=each)")
    assert each.ranking == "synflow/poisson(at=each)"


def test_a_score_alone_stands_for_the_usual_selectors():
    assert expand("snip(mode=train)") == [f"snip(mode=train)/{each}" for each in SELECTS]
    assert expand("snip/poisson") == ["snip/poisson"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("snap/threshold", "score must be one of .* got 'snap'"),
        ("snip/best", "selector must be one of .* got 'best'"),
        ("snip(speed=3)/threshold", "options of snip must be among mode, .* got 'speed'"),
        ("snip/threshold(rescale=True)", "options of threshold must be among at, scale, got 'rescale'"),
        ("snip/multinomial(at=start)", "at must be end or each, got 'start'"),
        ("snip/multinomial(scale=drop)", "scale must be fold or keep, got 'drop'"),
        ("snip(mode=fast)/threshold", "mode must be"),
        ("snip", "must be score"),
        ("snip/", "must be score"),
        ("snip(1)/threshold", "must be score"),
        ("snip(mode=f(1))/threshold", "must be score"),
        ("snip(**x)/threshold", "must be score"),
        ("snip*2/threshold", "must be score"),
    ],
)
def test_errors_say_what_is_wrong(text, message):
    with pytest.raises(ValueError, match=message):
        Method.parse(text)
