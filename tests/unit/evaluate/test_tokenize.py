"""Expected tokens are the answers of the Java program that `tokenize` stands in for."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from capsmith.evaluate.tokenize import PUNCTUATION, _lines_of, ptb, ptb_lines


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A dog's owner, who can't see 2 T-shirts .", "a dog 's owner who ca n't see 2 t-shirts"),
        ("I'm sure you're gonna say he'll cannot", "i 'm sure you 're gon na say he 'll can not"),
        ("It’s a boys' “game” – rock 'n' roll…", "it 's a boys game rock 'n' roll"),
        (
            "O'Neil eats hors d'oeuvres at five o'clock",
            "o'neil eats hors d'oeuvres at five o'clock",
        ),
        ("a (small) dog [sic]", "a -lrb- small -rrb- dog -lsb- sic -rsb-"),
        ("Mr. Lee of the U.S. at St. Paul Ave. etc.", "mr. lee of the u.s. at st. paul ave. etc."),
        ("a man sat. It is hot.", "a man sat it is hot"),
        ("No. 5 is no. The", "no. 5 is no the"),
        ("the letter P. by J. Smith", "the letter p. by j. smith"),
        ("a dog.A cat!What", "a dog.a cat!what"),
        ("ready to bat., maybe", "ready to bat. maybe"),
        ("$12.99 at 10:30pm, 1,000 or .5", "$ 12.99 at 10:30 pm 1,000 or .5"),
        ("22 3/4 his/her w/o a TV/VCR", "22\N{NO-BREAK SPACE}3/4 his/her w/o a tv/vcr"),
        ("a black &amp; white AT&amp;T sign, Q&A", "a black & white at&t sign q&a"),
        ("see www.foo.com or a@b.com", "see www.foo.com or a@b.com"),
        ("what?? really?! yes! no?", "what ?? really ?! yes no"),
        ("the colour grey, naïve café", "the colour grey naïve café"),
        ("up - or -- down--now", "up or down now"),
        ("the '90s and 1920's", "the '90s and 1920 's"),
        ("", ""),
        (" ?.! \N{REPLACEMENT CHARACTER}", ""),
    ],
)
def test_tokens(caption, tokens):
    assert ptb(caption) == tokens


def test_an_initial_that_ends_a_line_depends_on_the_next_line():
    assert ptb_lines(["the letter P.", "A dog"]) == ["the letter p", "a dog"]
    assert ptb_lines(["the letter P.", "Dogs"]) == ["the letter p.", "dogs"]


def test_one_caption_one_line_whatever_it_holds():
    assert ptb_lines(["two\nlines\rof text", "", "x y"]) == ["two lines of text", "", "x y"]
    assert ptb_lines([]) == []


@given(st.lists(st.text(), max_size=4))
def test_any_text_gives_as_many_lines_without_punctuation_or_capitals(captions):
    lines = ptb_lines(captions)
    assert len(lines) == len(captions)
    tokens = {token for line in lines for token in line.split(" ")}
    assert not tokens & PUNCTUATION
    assert all(line == line.lower() for line in lines)


# Pieces whose tokens depend on each other, across the ends of lines too, among some that do not.
TRICKY = """
    A a The the As dog dog. dog's dog, t-shirt. fig. No. no. art. 5 22 3/4 P. P J. I. ' 's n't 'n'
    '90 <a b> Mr. Ill. mass. etc. etc., cannot wanna, U.S. ph. D. ol' x-y. . , ...
"""
LINE = st.lists(st.sampled_from(TRICKY.split()), max_size=4).map(" ".join)


@settings(max_examples=500, deadline=None)
@given(st.lists(LINE, min_size=1, max_size=5))
def test_lines_of_simple_words_are_tokenised_as_all_others(captions):
    assert ptb_lines(captions) == _lines_of(captions)
