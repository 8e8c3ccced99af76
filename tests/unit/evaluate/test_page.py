from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np

from capsmith.evaluate.metrics import DEFAULT, SCORERS, Captions
from capsmith.evaluate.page import html_page
from capsmith.evaluate.result import Evaluation, ScoredPhoto
from capsmith.evaluate.scores import agree, compare, measure, per_caption
from capsmith.evaluate.tables import markdown, text_lines
from tests.datasets import photo_bytes

HOSTILE = (
    "</p><script>alert(1)</script>",
    '"><img src=https://example.org/x onerror=alert(1)>',
    "' onmouseover='alert(1) javascript:alert(1) <!-- ]]>",
    "&lt;b&gt; &#60;script&#62; \x00\x07\x1b[31m \udcff \u202egpj.exe | `code` [link](http://x)",
)


def evaluation(texts: list[str], ids: list[str]) -> Evaluation:
    references = [("a dog runs", text) for text in texts[::-1]]
    captions = Captions.of(texts, range(len(texts)), references, language="en")
    scorers = {name: SCORERS[name] for name in DEFAULT}
    scores = measure(captions, scorers)
    grades = np.arange(len(texts), dtype=np.float64)
    return Evaluation(
        captions_from=HOSTILE[0],
        references_from=HOSTILE[1],
        language='"><script>',
        rule="Penn Treebank",
        photos=[ScoredPhoto(*row) for row in zip(ids, texts, references, strict=True)],
        scores=scores,
        warnings=(HOSTILE[2],),
        compared_with=HOSTILE[2],
        differences=compare(scores, scores),
        judgements=len(texts),
        agreement=agree(per_caption(captions, scorers), grades),
    )


class Reader(HTMLParser):
    """The tags and attributes of a page, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_from_a_file_becomes_markup():
    made = evaluation(list(HOSTILE), [f"{text}.jpg" for text in HOSTILE])
    page = html_page(made, {made.photos[0].id: photo_bytes()}, photos=10)
    page.encode("utf-8")
    read = Reader(page)
    assert {tag for tag, _ in read.tags} == {
        "html", "meta", "title", "style", "main", "h1", "h2", "p", "ul", "ol", "li", "b", "span",
        "div", "table", "tr", "th", "td", "img", "dl", "dt", "dd",
    }  # fmt: skip
    assert not [name for _, attributes in read.tags for name in attributes if name[:2] == "on"]
    for text in HOSTILE[:3]:
        assert text in read.text
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", page)


def test_the_page_needs_no_other_file_or_host():
    made = evaluation(["a dog", "a cat"], ["dog.jpg", "cat.jpg"])
    read = Reader(html_page(made, {"dog.jpg": photo_bytes()}, photos=10))
    sources = [a for _, attributes in read.tags for a in attributes if a in ("src", "href")]
    assert sources == ["src"]
    image = next(attributes for tag, attributes in read.tags if tag == "img")
    assert str(image["src"]).startswith("data:image/jpeg;base64,")
    assert image["alt"] == "dog.jpg"
    assert "photo not found" in read.text
    policy = next(a["content"] for t, a in read.tags if t == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_worst_photos_come_first_and_the_number_of_all_is_told():
    made = evaluation(["a dog runs", "a dog", "nothing"], ["good.jpg", "fair.jpg", "bad.jpg"])
    text = Reader(html_page(made, {}, photos=2)).text
    assert "2 of 3 photos, lowest CIDEr first" in text
    assert text.index("bad.jpg") < text.index("fair.jpg")
    assert "good.jpg" not in text


def test_tables_have_one_line_a_metric_and_markdown_shows_text_as_it_is():
    made = evaluation(list(HOSTILE), [f"{number}.jpg" for number in range(4)])
    lines = list(text_lines(made))
    assert sum(line.startswith("CIDEr ") for line in lines) == 3
    assert any("no measurable difference" in line for line in lines)
    text = markdown(made)
    assert "<script" not in text.replace(r"\<", "")
    assert "](http" not in text
    assert all(line.count(" | ") >= 2 for line in text.splitlines() if line.startswith("|"))


def test_json_has_every_photo_and_no_number_that_json_lacks():
    made = evaluation(["a dog runs", "a cat"], ["1.jpg", "2.jpg"])
    plain = json.loads(json.dumps(made.to_dict(), allow_nan=False))
    assert plain["metrics"]["CIDEr"].keys() == {"value", "low", "high"}
    assert [row["photo"] for row in plain["per_photo"]] == ["1.jpg", "2.jpg"]
    assert plain["differences"]["BLEU-1"]["is_measurable"] is False
    assert plain["agreement"]["CIDEr"].keys() >= {"kendall_b", "kendall_c"}
