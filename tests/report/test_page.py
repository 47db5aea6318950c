import re
from base64 import b64decode
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from ntkft import plots
from ntkft._errors import InputError
from ntkft.plots.style import new_axes
from ntkft.report.page import Section, Table, page

VOID = {"meta", "img", "br", "hr", "link", "input"}
ODD = "a < b & \"c\" > 'd' <script>alert(1)</script> λ̂₁"


class Document(HTMLParser):
    """Elements of a page, in order, and whether every one of them is closed where it should be."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"{tag} repeats an attribute"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open and data.strip():
            self.text.setdefault(self.open[-1], []).append(data)

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def figure(height: float = 2.0) -> Figure:
    result, axes = new_axes("A line", "x", "y", height=height)
    axes.plot([0, 1], [0, 1])
    return result


def sections():
    table = Table(("rule", "epoch", "note"), (("SURE", "42", "as it is"), ("GCV", "−7", "80 or later")))
    return [
        Section(f"First {ODD}", (f"One. {ODD}", "Two."), figure(), table, alt=f"A line, {ODD}"),
        Section("Second", (), figure(), None),
        Section("Second", ("Same heading.",), None, Table((ODD,), ((ODD,),))),
    ]


@pytest.fixture(scope="module")
def text() -> str:
    return page(f"Title {ODD}", f"Lead {ODD}", sections())


@pytest.fixture(scope="module")
def document(text) -> Document:
    return Document(text)


def test_every_tag_is_closed_and_the_page_says_what_it_is(text, document):
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert [name for name, _ in document.elements if name in ("html", "head", "title", "body", "main", "h1")] == [
        "html", "head", "title", "body", "h1", "main",
    ]  # fmt: skip
    assert {"charset": "utf-8"} in document.every("meta")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in document.every("meta")


def test_all_text_arrives_as_it_was_given(document):
    assert document.text["h1"] == document.text["title"] == [f"Title {ODD}"]
    assert document.text["p"] == [f"Lead {ODD}", f"One. {ODD}", "Two.", "Same heading."]
    assert document.text["h2"] == [f"First {ODD}", "Second", "Second"]
    assert document.text["th"] == ["rule", "epoch", "note", ODD]
    assert document.text["td"] == ["SURE", "42", "as it is", "GCV", "−7", "80 or later", ODD]
    assert not document.every("script")


def test_ids_are_unique_and_every_link_leads_to_one(document):
    ids = [attributes["id"] for _, attributes in document.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) == 3
    assert [attributes["href"] for attributes in document.every("a")] == [f"#{name}" for name in ids]


def test_nothing_is_fetched_and_nothing_runs(text, document):
    assert not re.search(r"https?:|//[a-z]|@import|url\(|<script|<link|<iframe", re.sub(r'src="[^"]*"', "", text))
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes in document.every("img"))
    assert not [name for _, attributes in document.elements for name in attributes if name.startswith("on")]


def test_figures_are_embedded_with_their_words_and_their_size(document):
    first, second = document.every("img")
    assert (first["alt"], second["alt"]) == (f"A line, {ODD}", "Second")
    image = b64decode(first["src"].partition(",")[2])
    assert image == plots.png(figure())
    width, height = figure().get_size_inches() * figure().dpi
    assert (int(first["width"]), int(first["height"])) == (round(width), round(height))


def test_a_saved_figure_and_the_figure_itself_give_the_same_page(tmp_path):
    path = plots.save(figure(), tmp_path / "deep" / "line.png")
    drawn, saved = (page("t", "l", [Section("h", (), source)]) for source in (figure(), path))
    assert drawn == saved


def test_the_same_arguments_give_the_same_page(text):
    assert page(f"Title {ODD}", f"Lead {ODD}", sections()) == text


def test_columns_of_mostly_numbers_are_set_to_the_right_but_for_the_first():
    rows = (("1", "−0.5", "12 %", "1.5e-04", "word", "7"), ("2", "inf", "", "5.2 %", "3", "beyond"), ("3",) * 6)
    parsed = Document(page("t", "l", [Section("h", (), None, Table(tuple("abcdef"), rows))]))
    classes = [attributes.get("class") for attributes in parsed.every("th")]
    assert classes == [None, "number", "number", "number", "number", "number"]
    parsed = Document(page("t", "l", [Section("h", (), None, Table(("a", "b"), (("x", "y"), ("1", "2"))))]))
    assert [attributes.get("class") for attributes in parsed.every("td")] == [None] * 4


def test_wide_tables_scroll_and_paper_shows_them_whole(text, document):
    frames = [attributes for attributes in document.every("div") if attributes.get("class") == "wide"]
    assert [frame["tabindex"] for frame in frames] == ["0", "0"]
    style = " ".join(document.text["style"])
    assert re.search(r"\.wide \{[^}]*overflow-x: auto", style)
    paper = style[style.index("@media print") :]
    assert "size: A4" in style
    assert "break-inside: avoid" in paper
    assert re.search(r"\.wide \{ overflow: visible", paper)


def test_a_page_may_have_no_sections():
    parsed = Document(page("t", "l", []))
    assert not parsed.every("nav")
    assert parsed.text["p"] == ["l"]


def test_figures_and_tables_that_cannot_be_shown_are_refused_together(tmp_path):
    wrong = tmp_path / "wrong.png"
    wrong.write_text("no image")
    table = Table(("a", "b"), (("1", "2"), ("3",)))
    with pytest.raises(
        InputError,
        match=r"(?s)page: 3 problems.*missing.png of 'One' is not a file.*wrong.png of 'Two' is not a PNG"
        r".*row 2 of the table of 'Two' has 1 cells; wanted 2",
    ):
        page("t", "l", [Section("One", (), tmp_path / "missing.png"), Section("Two", (), wrong, table)])


def test_the_image_stands_between_the_text_and_the_table(text):
    order = [text.index(mark) for mark in ("<p>Two.</p>", "<figure>", "<table>", "<h2>Second</h2>")]
    assert order == sorted(order)
