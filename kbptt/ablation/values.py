"""Parses values that are typed or written into a YAML file, in the same way everywhere.

Words, numbers, lists and mappings are those of YAML 1.2's core schema: `1e-3` is a number, `yes`
and `12:30` are words; `none` is null. Aliases are refused (a few lines of them expand to
gigabytes), and so are duplicate keys.
"""

import re
from typing import Any

import yaml

# Far beyond any option of kbptt; deeper nesting would exhaust Python's stack.
_MAX_DEPTH = 50
_EXPECTED = "It is neither a word, a number nor a list"


class _Loader(yaml.SafeLoader):
    """Loads plain data with the types of YAML 1.2's core schema."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (filled below; PyYAML copies it)

    def __init__(self, stream: Any):
        super().__init__(stream)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"the alias *{event.anchor} is not supported: repeat the value")
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {_MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        mapping = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.YAMLError("a key is a list or a mapping; expected a word")
            key = self.construct_object(key_node)
            if key in mapping:
                line = key_node.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key!r} occurs twice (line {line})")
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    try:
        return int(node.value)
    except ValueError:  # more digits than Python converts
        return float(node.value)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|none|None|NONE|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def load_yaml(text: str) -> Any:
    """Returns the plain data in a YAML document.

    Raises:
        ValueError: if `text` is not one; the message is a clause without a full stop.
    """
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def scalar(value: Any) -> Any:
    """Parses one value that was typed; a value that is not a string is returned unchanged.

    `1e-1` is a number, `[1, 2]` a list, `{name: windowed, length: 64}` a mapping; text in quotes is
    a word. `true`, `none` and `nan` may be in upper or lower case.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] in ("[", "{", '"', "'"):
        try:
            return load_yaml(text)
        except ValueError as error:
            raise ValueError(f"Cannot read the value {value!r}. {_EXPECTED}: {error}.") from error
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return value


def parse_assignment(text: str) -> tuple[str, list[Any]]:
    """Returns name and values of `NAME=VALUE,VALUE,…`, as typed on the command line.

    Commas inside brackets and quotes belong to a value: `sizes=[1000,200,200]`, `target="a,b"`.
    """
    name, equals, values = text.partition("=")
    if not equals or not name.strip() or not values.strip():
        raise ValueError(
            "Expected name=value, such as length=200 (NAME=VALUE,VALUE,… for several values). "
            f"Received: {text!r}."
        )
    return name.strip(), [scalar(part.strip()) for part in _split(values)]


def _split(text: str) -> list[str]:
    """Splits at commas outside of brackets and quotes."""
    parts, depth, quote, before = [""], 0, "", ","
    for character in text:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and before in ",[{:":  # within a word it is an apostrophe
            quote = character
        else:
            depth += (character in "[{(") - (character in "]})")
        if character == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += character
        before = character if not character.isspace() else before
    return parts
