"""An evaluation as tables: aligned for a terminal, or in Markdown."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Final

from capsmith.evaluate.diversity import Diversity
from capsmith.evaluate.result import Evaluation
from capsmith.evaluate.scores import Difference
from capsmith.evaluate.statistics import Interval

Row = Sequence[str]

# Heads of columns that hold words; the others hold numbers.
_WORDS: Final = ("metric", "")


def text_lines(evaluation: Evaluation) -> Iterator[str]:
    """The lines for a terminal. Texts from files are not escaped here."""
    yield f"{evaluation.captions_from}: {headline(evaluation)}"
    for heading, rows in tables(evaluation):
        yield ""
        if heading:
            yield heading
        widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            padded = map(_padded, row, widths, rows[0])
            yield "  ".join(padded).rstrip()
    yield ""
    yield diversity_line(evaluation.scores.diversity)


def markdown(evaluation: Evaluation) -> str:
    """The same in Markdown, without raw HTML: what comes from files is escaped."""
    parts = [_escaped(f"{evaluation.captions_from}: {headline(evaluation)}"), ""]
    for heading, rows in tables(evaluation):
        head, *body = [[_escaped(cell) for cell in row] for row in rows]
        if heading:
            parts += [_escaped(heading), ""]
        parts += [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
        parts += [f"| {' | '.join(row)} |" for row in body]
        parts.append("")
    parts += [_escaped(diversity_line(evaluation.scores.diversity)), ""]
    parts += [f"- warning: {_escaped(warning)}" for warning in evaluation.warnings]
    return "\n".join(parts).rstrip() + "\n"


def headline(evaluation: Evaluation) -> str:
    """What was scored against what, and how it was tokenised."""
    photos, references = len(evaluation.photos), evaluation.references
    return (
        f"{photos:,} photo{'' if photos == 1 else 's'} against"
        f" {references:,} reference{'' if references == 1 else 's'} of"
        f" {evaluation.references_from}; language {evaluation.language}, tokens: {evaluation.rule}"
    )


def tables(evaluation: Evaluation) -> Iterator[tuple[str, list[Row]]]:
    """(heading, rows) of each table, the first row its head."""
    rows: list[Row] = [("metric", "score", "95 % interval")]
    for name, score in evaluation.scores.metrics.items():
        rows.append((name, f"{score.interval.value:.3f}", _bounds(score.interval)))
    yield "", rows
    if evaluation.differences:
        rows = [("metric", "A", "B", "B - A", "95 % interval", "")]
        for name, found in evaluation.differences.items():
            rows.append(_difference(name, found))
        yield f"A: {evaluation.captions_from}; B: {evaluation.compared_with}", rows
    if evaluation.agreement:
        rows = [("metric", "Kendall tau-b", "tau-c", "Spearman", "Pearson")]
        for name, agreed in evaluation.agreement.items():
            numbers = (agreed.kendall_b, agreed.kendall_c, agreed.spearman, agreed.pearson)
            cells = ("-" if math.isnan(number) else f"{number:.3f}" for number in numbers)
            rows.append((name, *cells))
        yield f"agreement with {evaluation.judgements:,} judgements by people", rows


def diversity_line(found: Diversity) -> str:
    """One line about the captions themselves."""
    line = (
        f"captions: {found.mean_words:.1f} tokens on average, {found.vocabulary:,} different;"
        f" distinct-1 {found.distinct_1:.3f}, distinct-2 {found.distinct_2:.3f};"
        f" {found.identical_share:.0%} also stand under another photo, word for word"
    )
    if found.commonest_count == 1:
        return line
    return f'{line} (the commonest under {found.commonest_count:,}: "{found.commonest}")'


def _difference(name: str, found: Difference) -> Row:
    interval = f"{found.interval.low:+.3f} to {found.interval.high:+.3f}"
    verdict = "no measurable difference"
    if found.is_measurable:
        verdict = "B is higher" if found.interval.value > 0 else "A is higher"
    values = f"{found.first:.3f}", f"{found.second:.3f}", f"{found.interval.value:+.3f}"
    return (name, *values, interval, verdict)


def _bounds(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _padded(cell: str, width: int, head: str) -> str:
    space = " " * (width - _width(cell))
    return cell + space if head in _WORDS else space + cell


def _width(text: str) -> int:
    """Columns of a terminal: East Asian characters take two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table too."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in r"\`*_[]<>#|~&" else c for c in plain)
