"""Captions to tokens as published scores have them: Penn Treebank rules, lower case.

The community's numbers rest on one program: the PTBTokenizer of Stanford CoreNLP 3.4.1 with
`-preserveLines -lowerCase`, after which pycocoevalcap drops a list of punctuation marks. This
module gives the same tokens without Java. The rules were written from that program's answers; its
oddities are kept where captions show them ("(" becomes the token "-lrb-" and is not dropped, a
word keeps its full stop before a comma).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# Dropped after tokenising. Brackets stay: pycocoevalcap lists them in upper case, "-LRB-", which
# lower-cased tokens never equal.
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])

_REPLACED = {
    "(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-",
    "&amp;": "&", "&AMP;": "&", "&lt;": "<", "&gt;": ">", "£": "#", "€": "$", "¢": "cents",
    "½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3",
}  # fmt: skip

# Keep their full stop in any case of letters.
_ABBREVIATIONS = """
    adm al ala ariz ark assn assoc atty aug ave bhd bldg blvd brig bros calif capt cf cie cmdr co
    col colo comdr conn corp cos ct dak dec dept dr drs esq est etc ext feb fla fri ft ga gen gov
    govs hon inc ind jan jr jul jun kan kans ky lieut lt ltd maj mar md messrs mfg mich minn mlle
    mme mo mon mont mr mrs ms msgr mt natl neb nev nov oct okla pa penn ph plc pres prof pty pvt rd
    rep reps rev rt sen sens sep sept sgt spc sq sr st ste supt tel tenn thu thurs treas tue tues
    univ va vs vt wed wis wisc wyo
"""
# Keep it only when capitalised, because they are words too.
_CAPITALISED_ABBREVIATIONS = "Del Det Ill La Mass Miss Ore Tex Wash"
# Keep it only before a number.
_NUMBERED_ABBREVIATIONS = "art ca fig figs no nos op pp prop"
# A single letter before one of these ends a sentence; before anything else it is an initial.
_SENTENCE_STARTERS = """
    A About According After An As At But He Her Here If In It Last Many More Now Once One Other Our
    She Since So Some Such That The Their Then There These They This We What When While Yet You
"""

_L = r"[^\W\d_]"  # a letter
_C = r"[^\W_]"  # a letter or digit
_Q = "['\N{RIGHT SINGLE QUOTATION MARK}]"


# Words that are two tokens.
_CONTRACTED = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}


def _any(words: str, *, case: bool = False) -> str:
    return f"(?{'' if case else 'i'}:{'|'.join(sorted(words.split(), key=len, reverse=True))})"


_CLITIC = rf"{_Q}(?i:[smd]|re|ve|ll)(?!{_C})"
_PART = rf"(?:[DLOdlo]{_Q}(?={_L}{{2}}))?{_C}+"
_INITIALS = rf"{_L}(?:\.{_L})+\.(?!{_C})"
_ABBREVIATION = rf"(?:{_any(_ABBREVIATIONS)}|{_any(_CAPITALISED_ABBREVIATIONS, case=True)})\."

# In order: the first that matches wins, so a longer form stands before what it begins with.
_FORMS = (
    r"(?P<plain>[A-Za-z]+(?=\s|\Z))",
    r"(?P<line>\n)",
    # The program calls characters beyond the basic plane (emoji) and controls untokenizable.
    r"(?P<nothing>&(?:nbsp|quot|NBSP|QUOT);|[\x00-\x08\x0e-\x1b\x7f-\x9f\U00010000-\U0010ffff])",
    r"&(?:amp|lt|gt);|&[A-Za-z]{2,}\d?;|&#\d+;",
    r"</?[A-Za-z][^<>\n]*>",
    r"(?:https?|ftp)://[^\s\"<>|()]*[^\s\"<>|().!?,;:-]",
    r"\w[\w.-]*@\w[\w-]*(?:\.\w[\w-]*)*",
    rf"@{_L}\w*|#{_L}+",
    r"[A-Z]+(?:&(?:amp;)?[A-Z]+)+",
    # Words that are two tokens: can|not, do|n't, 't|is.
    rf"(?P<contracted>{_any(' '.join(_CONTRACTED))}(?![\w'-]))",
    rf"{_L}*?[^\W\d_nN](?=(?i:n{_Q}t))",
    rf"(?i:n{_Q}t(?!{_C}))",
    rf"(?i:{_Q}t(?=(?:is|was)(?!{_C})))",
    # Words with an apostrophe of their own.
    rf"(?i:{_Q}(?:em|till?|cause)(?!{_C})|{_Q}\d0s|{_Q}\d\d(?=\s)|{_Q}n{_Q}|{_Q}n(?!{_C}))",
    rf"(?i:(?:dunkin|somethin|ol){_Q}(?!{_C})|s{_Q}mores?|c{_Q}(?:mon|est)|li{_Q}l)(?!{_C})",
    rf"[Yy]{_Q}(?={_L})(?!{_CLITIC})|{_L}*[AEIOUYaeiouy](?!{_CLITIC}){_Q}[A-Zaeiou]{_L}*",
    rf"[A-HJ-XZn]{_Q}{_L}{{2,}}|[DJLdjl]{_Q}(?!{_C})",
    _CLITIC,
    # Words with full stops of their own.
    rf"(?:{_C}+-)*(?:{_INITIALS}|{_ABBREVIATION})(?:-{_C}+)+|(?:{_C}+-)*{_INITIALS}",
    rf"(?i:ph|ed)\.[Dd]\.(?!{_C})",
    rf"{_L}{_C}*(?:[.!?]{_L}{_C}*)+",
    rf"{_ABBREVIATION}",
    rf"{_any(_NUMBERED_ABBREVIATIONS)}\.(?=\s*\d)",
    rf"{_L}\.(?!\s+{_any(_SENTENCE_STARTERS, case=True)}\s)",
    rf"{_C}+(?:[-_]{_PART})*\.(?=[,;:])",
    # Numbers, fractions, alternatives (his/her), then all other words.
    r"(?P<fraction>\d+ \d+/\d+(?![/\w]))|\d+-\d+/\d+(?![/\w])",
    rf"{_C}+(?:-{_C}+){{0,2}}(?:/{_C}+(?:-{_C}+){{0,2}})+",
    rf"\d+(?:[.,]\d+)+(?:-{_C}+)+|[-+]?\d*(?:[.:,]\d+)+|[-+]\d+",
    rf"C\+\+(?!{_C})|[CcFf]#(?!{_C})|[A-Z]+\$",
    rf"{_PART}(?:[-_]{_PART})*",
    r"[!?]{2,}|\*+|_+|#+|<<|>>|[:;=][-o']?[()DPp|\]]",
    r"(?P<mark>\S)",
)
_TOKEN = re.compile("|".join(f"(?:{form})" for form in _FORMS))

# Every kind of quotation mark, dash and ellipsis becomes one of PUNCTUATION.
_DROPPED_MARKS = PUNCTUATION | set('"\N{REPLACEMENT CHARACTER}‘’“”‚„‹›«»–—…‒―')


def ptb(caption: str) -> str:
    """The tokens of one caption, joined by spaces; empty when nothing but punctuation is in it.

    >>> ptb("The dog's owner can't see 2 (small) T-shirts.")
    "the dog 's owner ca n't see 2 -lrb- small -rrb- t-shirts"
    """
    return ptb_lines([caption])[0]


def ptb_lines(captions: Sequence[str]) -> list[str]:
    """Each caption's tokens, joined by spaces, when all are tokenised as lines of one text.

    pycocoevalcap does so. It matters in one line of forty thousand: whether a caption's last word
    keeps its full stop ("the letter P.") depends on what the next caption begins with.
    """
    known: dict[str, str | None] = {}
    lines: list[str] = []
    waiting: list[str] = []
    for caption in captions:
        text = " ".join(caption.splitlines())
        line = _simple_line(text, known)
        # The first two words of a line can decide how the lines before it end.
        if line is None or (waiting and len(text.split()) < 2):
            waiting.append(text)
            continue
        if waiting:
            lines += _lines_of([*waiting, text])[:-1]
            waiting = []
        lines.append(line)
    return lines + _lines_of(waiting)


# Words whose tokens depend on nothing around them; most captions hold no other.
_SIMPLE = re.compile(
    rf"[A-Za-z]+|[.,]|(?!{_any(_NUMBERED_ABBREVIATIONS)}\.)"
    r"[A-Za-z]{2,}(?:-[A-Za-z]{2,})*(?:'s)?[.,]?"
)


def _simple_line(text: str, known: dict[str, str | None]) -> str | None:
    """The tokens of a line of simple words, or None for any other; `known` remembers words."""
    tokens = []
    for word in text.split():
        if word not in known:
            known[word] = " ".join(_tokens(word)) if _SIMPLE.fullmatch(word) else None
        found = known[word]
        if found is None:
            return None
        if found:
            tokens.append(found)
    return " ".join(tokens)


def _lines_of(texts: Sequence[str]) -> list[str]:
    if not texts:
        return []
    lines: list[list[str]] = [[]]
    for token in _tokens("\n".join(texts)):
        if token == "\n":
            lines.append([])
        else:
            lines[-1].append(token)
    return [" ".join(tokens) for tokens in lines]


def _tokens(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match.group()
        if kind == "plain" or kind == "contracted":
            word = token.lower()
            yield from _CONTRACTED.get(word, (word,))
        elif kind == "line":
            yield token
        elif kind == "fraction":
            yield token.replace(" ", "\N{NO-BREAK SPACE}")
        elif kind == "mark":
            if token not in _DROPPED_MARKS:
                yield _REPLACED.get(token, token).lower()
        elif kind is None:
            yield _normal(token)


def _normal(token: str) -> str:
    token = _REPLACED.get(token, token).replace("&amp;", "&").replace("’", "'")
    return token.replace("(", "-lrb-").replace(")", "-rrb-").lower()
