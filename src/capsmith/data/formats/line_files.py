"""Formats of one caption a line, without a header (but for Flickr30k's `results.csv`)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from capsmith.data.rows import Finding, OnFinding, Place, Row
from capsmith.data.text_files import read_lines

_TOKEN = re.compile(r"(?P<photo>[^\t]+?)#(?:(?P<tag>[a-z]{3})#)?\d+[ \t]\s*(?P<text>.*)")
# The published file lacks the second bar in one row: "2199200615.jpg| 4   A dog runs ...".
_RESULT = re.compile(r"(?P<photo>[^|]+?)\s*\|\s*\d+(?:\s*\||\s)\s*(?P<text>.*)")
_TAGGED_WORD = re.compile(r"(.+):[a-zA-Z0-9]{1,4}")
CJK = r"\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
_SPACE_IN_CJK = re.compile(rf"(?<=[{CJK}])\s+(?=[{CJK}0-9])|(?<=[0-9])\s+(?=[{CJK}])")


def flickr_token(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """`Flickr8k.token.txt`, `results_20130124.token`: `name.jpg#0<TAB>text`."""
    return _matched(path, on_finding, _TOKEN, "name.jpg#0<TAB>text")


def flickr_cn(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """Flickr8k-CN and Flickr30k-CN: `name.jpg#zhc#0 text`.

    Words that stand apart are joined, and their tags (`word:n`) taken off.
    """
    return _matched(path, on_finding, _TOKEN, "name.jpg#zhc#0 text", is_cn=True)


def flickr_results(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """Flickr30k's `results.csv`: `image_name| comment_number| comment` below such a header."""
    return _matched(path, on_finding, _RESULT, "image_name| comment_number| comment", skip=1)


def clipcap_chinese(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """ClipCap-Chinese: `id<TAB>caption`; the id is the photo's name without its suffix."""
    for photo, text, place in _pairs(path, on_finding, "id<TAB>caption"):
        language = "zh" if re.search(f"[{CJK}]", text) else ""
        yield Row(photo=photo, text=text, place=place, language=language)


def conceptual(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """Conceptual Captions: `caption<TAB>url`; the photo is called by `url_name`."""
    for text, url, place in _pairs(path, on_finding, "caption<TAB>url"):
        yield Row(photo=url_name(url), text=text, place=place)


def conceptual_urls(path: Path, on_finding: OnFinding) -> Iterator[str]:
    """The addresses in a file of Conceptual Captions, in its order."""
    return (url for _, url, _ in _pairs(path, on_finding, "caption<TAB>url"))


def url_name(url: str) -> str:
    """The name of a downloaded photo, without its suffix: half of the address's SHA-256, in hex.

    Captions find their photo by it, never by the number of a row.
    """
    return hashlib.sha256(url.strip().encode("utf-8", "surrogatepass")).hexdigest()[:32]


def plain_text(path: Path, on_finding: OnFinding) -> Iterator[Row]:
    """One caption a line, without photos; plain, gzip or xz."""
    for number, line in read_lines(path, on_finding):
        if line.strip():
            yield Row(photo="", text=line, place=Place(path, number))


def _matched(
    path: Path,
    on_finding: OnFinding,
    pattern: re.Pattern[str],
    expected: str,
    *,
    skip: int = 0,
    is_cn: bool = False,
) -> Iterator[Row]:
    for number, line in read_lines(path, on_finding):
        if number <= skip or not line.strip():
            continue
        place = Place(path, number)
        match = pattern.fullmatch(line)
        if match is None:
            on_finding(Finding(kind="row", place=place, message=f"is not of the form {expected}"))
            continue
        text = _joined(match["text"]) if is_cn else match["text"]
        language = (match["tag"] or "zh")[:2] if is_cn else ""
        yield Row(photo=match["photo"].strip(), text=text, place=place, language=language)


def _pairs(path: Path, on_finding: OnFinding, expected: str) -> Iterator[tuple[str, str, Place]]:
    for number, line in read_lines(path, on_finding):
        if not line.strip():
            continue
        place, fields = Place(path, number), line.split("\t")
        if len(fields) != 2:
            on_finding(Finding(kind="row", place=place, message=f"is not of the form {expected}"))
            continue
        yield fields[0].strip(), fields[1].strip(), place


def _joined(text: str) -> str:
    words = text.split()
    tagged = [_TAGGED_WORD.fullmatch(word) for word in words]
    if words and all(tagged):
        text = " ".join(match[1] for match in tagged if match)
    return _SPACE_IN_CJK.sub("", text)
