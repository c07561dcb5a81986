"""Colours, line styles and markers of the pictures."""

from ilu.runs.report.figures import SHAPES, STROKES
from ilu.runs.report.palette import FIXED, GREY, HUES, MARKERS, REPEATED, looks


def test_a_variant_has_the_hue_of_its_method_and_another_line():
    plain, penalty, control, flat, both = looks(
        ["rmu", "rmu-ilu", "rmu-control", "rmu-sam", "rmu-sam-ilu"]
    )
    assert len({each.colour for each in (plain, penalty, control, flat, both)}) == 1
    assert [each.dash for each in (plain, penalty, control, flat, both)] == [
        "-", "--", ":", "-.", "--",
    ]  # fmt: skip
    assert plain.marker != flat.marker == both.marker


def test_a_method_has_the_same_look_in_every_picture():
    few, many = ["npo", "rmu-ilu"], ["original: lab", "dpo", "max-entropy", "rmu", "rmu-ilu", "npo"]
    first, second = (dict(zip(names, looks(names), strict=True)) for names in (few, many))
    assert all(first[name] == second[name] for name in few)
    assert second["original: lab"].colour == GREY
    assert looks(["original"]) == looks(["original: lab"])
    assert GREY not in HUES


def test_names_that_differ_differ_in_the_picture():
    names = ["rmu (a)", "rmu (b)", "rmu-ilu (a)", "rmu-ilu (b)", *(f"m{i}" for i in range(30))]
    found = looks(names)
    assert len(set(found)) == len(names)
    assert found[0].colour == found[2].colour == FIXED["rmu"]
    assert found[1].colour == found[3].colour != found[0].colour
    hyphen, plain = looks(["circuit-breakers", "circuit-breakers-ilu"])
    assert hyphen.colour == plain.colour


def test_the_legend_has_every_line_style_and_marker():
    assert set(SHAPES) >= {*MARKERS.values(), *REPEATED, ""}
    assert set(STROKES) == {"-", "--", ":", "-."}
