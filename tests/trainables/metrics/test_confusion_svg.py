"""The picture of a confusion matrix."""

from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from trainables.metrics.classification import Confusion
from trainables.metrics.confusion_svg import confusion_svg

SVG = "{http://www.w3.org/2000/svg}"


def test_picture_has_counts_and_shares_of_each_row() -> None:
    tree = ElementTree.fromstring(confusion_svg(Confusion(("no", "yes"), ((6, 2), (0, 0)))))
    cells = [[text.text for text in cell.iter(f"{SVG}text")] for cell in tree.iter(f"{SVG}g")]
    assert cells == [["6", "75%"], ["2", "25%"], ["0", "0%"], ["0", "0%"]]
    shades = [rect.get("fill-opacity") for rect in tree.iter(f"{SVG}rect")]
    assert shades == ["0.750", "0.250", "0.000", "0.000"]


def test_labels_are_data() -> None:
    picture = confusion_svg(Confusion(("<script>alert(1)</script>&",), ((1,),)))
    assert "<script" not in picture
    titles = [title.text for title in ElementTree.fromstring(picture).iter(f"{SVG}title")]
    assert titles[1] == "<script>alert(1)</script>&"


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_picture_of_any_labels_is_well_formed(labels: list[str]) -> None:
    none = ((0,) * len(labels),) * len(labels)
    tree = ElementTree.fromstring(confusion_svg(Confusion(tuple(labels), none)))
    assert len(list(tree.iter(f"{SVG}rect"))) == len(labels) ** 2


def test_long_labels_are_cut_in_the_picture_and_whole_under_the_pointer() -> None:
    label = "a label of more than eighteen letters"
    tree = ElementTree.fromstring(confusion_svg(Confusion((label,), ((1,),))))
    texts = [text.text for text in tree.iter(f"{SVG}text") if list(text)]
    assert texts == ["a label of more t…"] * 2
