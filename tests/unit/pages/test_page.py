"""The page of an evaluation: escaped, self-contained, the same twice."""

import base64
import re
from html.parser import HTMLParser

import pytest

from vlm3d_ct.pages.page import Card, Facts, Gallery, Page, Picture, Prose, Section, Table

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n").decode()
EVIL = "<script>alert('&')</script>\"><img src=x onerror=y>"


class _Reader(HTMLParser):
    """Every tag with its attributes, the text between, and the balance of open tags."""

    VOID = ("meta", "img")

    def __init__(self):
        super().__init__()
        self.tags, self.text, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def _page(text):
    picture = Picture(data_uri=PNG, alt=text, caption=text)
    card = Card(title=text, facts=(text,), pictures=(picture,), texts=((text, text),), wrong=True)
    blocks = (
        Table(header=(text, text), rows=((text, text), ("a", "b")), caption=text, muted=frozenset({1})),
        Facts(rows=((text, text),)),
        picture,
        Prose(text=text),
        Gallery(title=text, cards=(card, Card(title=text, texts=((text, text),), texts_first=True))),
    )
    return Page(title=text, lead=text, sections=(Section(title=text, blocks=blocks),))


def _read(html):
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert not reader.open
    return reader


def test_every_text_of_every_block_is_escaped_and_shown_whole():
    reader = _read(_page(EVIL).render())
    assert "script" not in {tag for tag, _ in reader.tags}
    assert all(not name.startswith("on") for _, attributes in reader.tags for name in attributes)
    tags_of_a_harmless_page = [tag for tag, _ in _read(_page("x").render()).tags]
    assert [tag for tag, _ in reader.tags] == tags_of_a_harmless_page
    # title twice, lead, section, table 5, facts 2, figcaption, prose, gallery and its cards 7 + 3
    assert "".join(reader.text).count(EVIL) == _page("x").render().count(">x<")


def test_the_page_needs_nothing_outside_of_itself():
    html = _page("x").render()
    reader = _read(html)
    sources = [value for _, attributes in reader.tags for name, value in attributes.items() if name in ("src", "href")]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"https?://|@import|url\(", html)
    policy = next(a["content"] for tag, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


@pytest.mark.parametrize("uri", ["https://example.org/a.png", "a.png", "data:text/html;base64,AAAA", PNG + '" x="', ""])
def test_a_picture_that_is_not_inside_the_page_is_refused(uri):
    with pytest.raises(ValueError, match="data URI"):
        Picture(data_uri=uri, alt="")


def test_a_row_that_does_not_fit_its_header_is_refused():
    with pytest.raises(ValueError, match="1 cells, the header 2"):
        Table(header=("a", "b"), rows=(("1",),))


def test_only_the_rows_named_are_muted():
    rows = [a.get("class") for tag, a in _read(_page("x").render()).tags if tag == "tr"]
    assert rows == [None, None, "muted", None]


def test_a_section_without_blocks_is_not_shown_and_an_empty_page_is_a_page():
    html = Page(title="empty", lead="", sections=(Section(title="nothing here", blocks=()),)).render()
    _read(html)
    assert "nothing here" not in html
    empty = Section(title="s", blocks=(Table(header=("a",), rows=()), Facts(rows=()), Gallery(cards=())))
    _read(Page(title="empty", lead="", sections=(empty,)).render())


def test_the_same_content_gives_the_same_page():
    assert _page("ä ≥ 0.5").render() == _page("ä ≥ 0.5").render()


@pytest.mark.parametrize(("columns", "cell"), [(3, "0.71 (0.65 to 0.77)"), (4, "0.71\n(0.65 to 0.77)")])
def test_intervals_stand_below_their_estimates_where_columns_are_many(columns, cell):
    table = Table(header=("",) * columns, rows=(("0.71 (0.65 to 0.77)", *("a (b)",) * (columns - 1)),))
    reader = _read(Page(title="t", lead="", sections=(Section(title="s", blocks=(table,)),)).render())
    assert cell in reader.text
    assert "a (b)" in reader.text
