"""Write cli.md, api.md and recipe.md of docs/reference from the code.

    python scripts/make_reference.py [--check]

--check changes nothing and exits with 1 where a page is stale.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

import capsmith
from capsmith import bundle, fetch
from capsmith.cli.app import app
from capsmith.data import manifest, sources, store
from capsmith.evaluate import report
from capsmith.models import architectures, encoder_names
from capsmith.runtime import pictures
from capsmith.training import config

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
HELP_WIDTH = 90
SIGNATURE_WIDTH = 88
MORE_NAMES: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (fetch, ("picture", "FetchLimits")),
    (pictures, ("PictureLimits",)),
    (bundle, ("read_bundle", "write_bundle", "Bundle")),
    (report, ("report", "Report")),
    (sources, ("read_data", "DataSource")),
    (manifest, ("Manifest", "Photo")),
    (store, ("open_store", "FeatureStore")),
)


class _Bare(str):
    """An annotation that prints without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def cli_page() -> str:
    """Every command's help text, as the command prints it."""
    # Any: typer's own type says less than a group of commands has.
    group: Any = typer.main.get_command(app)
    settings: dict[str, Any] = {"terminal_width": HELP_WIDTH, "max_content_width": HELP_WIDTH}
    parts = ["# Command line", "", _NOTE, ""]
    with group.make_context("capsmith", [], resilient_parsing=True, **settings) as root:
        parts += _help_block("capsmith", group.get_help(root))
        parts += _commands_of(group, root, settings)
    return "\n".join(parts) + "\n"


def _commands_of(group: Any, parent: Any, settings: dict[str, Any]) -> Iterator[str]:
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        with command.make_context(
            name, [], parent=parent, resilient_parsing=True, **settings
        ) as context:
            yield from _help_block(context.command_path, command.get_help(context))
            if hasattr(command, "list_commands"):
                yield from _commands_of(command, context, settings)


def api_page() -> str:
    """Signatures and docstrings of the public names."""
    parts = ["# Python", "", _NOTE, "", "## capsmith", ""]
    for name in capsmith.__all__:
        parts += _entry(name, getattr(capsmith, name))
    for module, names in MORE_NAMES:
        parts += [f"## {module.__name__}", ""]
        for name in names:
            parts += _entry(name, getattr(module, name))
    return "\n".join(parts).rstrip() + "\n"


def recipe_page() -> str:
    """Sections and fields of a recipe, with their defaults."""
    parts = ["# Recipes", "", _NOTE, "", _RECIPES, ""]
    for section, kind in (
        ("the recipe", config.Recipe), ("data", config.DataConfig),
        ("data.sources", sources.DataSource), ("encoder", encoder_names.EncoderSpec),
        ("features", config.FeatureConfig), ("tokenizer", config.TokenizerConfig),
        ("training", config.Training), ("beside", config.Beside),
        ("self_critical", config.SelfCritical), ("validation", config.Validation),
        ("decoding", bundle.Decoding), ("text", bundle.TextRules), ("papers", config.PaperFiles),
    ):  # fmt: skip
        parts += [
            f"## {section}",
            "",
            *_docstring(kind),
            "",
            "| field | default |",
            "| --- | --- |",
        ]
        parts += [f"| `{field.name}` | {_default(field)} |" for field in dataclasses.fields(kind)]
        parts.append("")
    for section, table in (("mapper", architectures.MAPPERS),
                           ("language_model", architectures.LANGUAGE_MODELS)):  # fmt: skip
        for name, part in table.items():
            sizes: Any = getattr(part, "Config", part)
            parts += [f"## {section}, kind: {name}", "", *_docstring(part), ""]
            if sizes is not part:
                parts += [*_docstring(sizes), ""]
            parts += ["| field | default |", "| --- | --- |"]
            parts += [f"| `{f.name}` | {_default(f)} |" for f in dataclasses.fields(sizes)]
            parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`" if field.default != "" else "none"
    return "needed" if field.default_factory is dataclasses.MISSING else "its own defaults"


_RECIPES = """\
A recipe is a YAML file that `capsmith train` reads; a field is changed on the command line by
`--set section.field=value`. Paths are relative to the recipe's folder, those of `--set` too. A
mapper's `input_width` and `width`, and a language model's `vocab_size`, follow from what is beside
them and are left out."""
_NOTE = "Written from the code by `scripts/make_reference.py`; do not edit."


def _help_block(title: str, text: str) -> list[str]:
    lines = [line.rstrip() for line in text.splitlines()]
    return [f"## {title}", "", "```text", *lines, "```", ""]


def _entry(name: str, subject: Any) -> Iterator[str]:
    yield from (f"### {name}", "", "```python", _signature(name, subject), "```", "")
    yield from _docstring(subject)
    if not inspect.isclass(subject) or issubclass(subject, Exception):
        return
    for member, attribute in vars(subject).items():
        if member.startswith("_"):
            continue
        if isinstance(attribute, property):
            shown = f"{name}.{member}: {attribute.fget.__annotations__['return']}"
        elif inspect.isfunction(attribute):
            shown = _signature(f"{name}.{member}", attribute, is_method=True)
        else:
            continue
        yield from (f"#### {name}.{member}", "", "```python", shown, "```", "")
        yield from _docstring(attribute)


def _signature(name: str, subject: Any, *, is_method: bool = False) -> str:
    if inspect.isclass(subject) and issubclass(subject, Exception):
        return f"class {name}({subject.__bases__[0].__name__})"
    if inspect.isclass(subject) and not dataclasses.is_dataclass(subject):
        return f"class {name}"
    signature = inspect.signature(subject)
    parameters = [_bare(p) for p in signature.parameters.values()][is_method:]
    result = signature.return_annotation
    arrow = "" if result is inspect.Signature.empty else f" -> {_Bare(result)}"
    if inspect.isclass(subject):
        arrow, name = "", f"class {name}"
    one_line = f"{name}{inspect.Signature(parameters)}{arrow}"
    if len(one_line) <= SIGNATURE_WIDTH:
        return one_line
    lines = _one_a_line(parameters)
    return "\n".join([f"{name}(", *(f"    {line}," for line in lines), f"){arrow}"])


def _bare(parameter: inspect.Parameter) -> inspect.Parameter:
    if isinstance(parameter.annotation, str):
        parameter = parameter.replace(annotation=_Bare(parameter.annotation))
    if " at 0x" in repr(parameter.default):  # an object's address is no news
        parameter = parameter.replace(default=_Bare("..."))
    return parameter


def _one_a_line(parameters: list[inspect.Parameter]) -> Iterator[str]:
    was_keyword = False
    for parameter in parameters:
        is_keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
        if is_keyword and not was_keyword:
            yield "*"
        was_keyword = is_keyword
        yield str(parameter)


def _docstring(subject: Any) -> Iterator[str]:
    text = inspect.getdoc(subject) or ""
    # The docstrings are plain text: an asterisk or a less-than sign is one.
    escaped = re.sub(r"(?<!`)([*<])(?![^`\n]*`)", r"\\\1", text)
    yield from (escaped, "")


def main() -> int:
    """Write the pages, or tell which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    is_check = parser.parse_args().check
    stale = 0
    pages = {"cli.md": cli_page, "api.md": api_page, "recipe.md": recipe_page}
    for name, page in pages.items():
        text = page()
        path = FOLDER / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if is_check:
            sys.stderr.write(f"{path}: stale; run: python scripts/make_reference.py\n")
        else:
            path.write_text(text, encoding="utf-8")
    return int(is_check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
