"""Turns the text of a spec into plain data: YAML 1.2's scalars, or JSON.

Guarantee: no key stands twice, no text takes long or much memory whatever it says (aliases, merges and nesting are
bounded), nothing is constructed but dicts, lists and scalars. Knows no schema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from configs.faults import Fault, SpecError, short

MAX_SPEC_BYTES = 100_000
"""A spec is written by hand, and a YAML of this size takes up to a second to read; more is a mistake."""
MAX_ALIASES = 1_000
MAX_KEYS = 1_000
"""Keys of one mapping after its merges: merges of merges can mean a billion."""
MAX_VALUES = 100_000
"""Values once aliases are written out: ten lines of aliases to aliases can mean a billion."""
MAX_DEPTH = 100


def parse_text(text: str, *, source: str) -> Any:
    """The plain data that a YAML or JSON text says; None for an empty one.

    Raises:
        SpecError: it is too large, isn't YAML or JSON, or says a key twice.
    """
    if len(text.encode("utf-8", "replace")) > MAX_SPEC_BYTES:
        fault = Fault(source, "", f"is larger than {MAX_SPEC_BYTES:,} bytes", "give a spec, and its data as files")
        raise SpecError([fault], source)
    try:
        # JSON is YAML but for tabs and surrogate pairs.
        return _parse_json(text, source) if text.lstrip().startswith("{") else _parse_yaml(text, source)
    except RecursionError:
        raise SpecError([_too_deep(source)], source) from None
    except ValueError as error:
        if isinstance(error, SpecError):
            raise
        # A number of thousands of digits.
        message = f"has a value that can't be read ({str(error).split(';')[0]})"
        raise SpecError([Fault(source, "", message, "write a plain value")], source) from None


def unusable_values(data: Any, *, source: str) -> list[Fault]:
    """What keeps ``data`` from being JSON of a sane size: dates, bytes, halves of characters, circles, too much."""
    faults: list[Fault] = []
    for number, (field, value, depth) in enumerate(_walk(data), 1):
        if number > MAX_VALUES:
            message = f"has more than {MAX_VALUES:,} values once its aliases are written out"
            return [Fault(source, "", message, "use fewer aliases, or none that holds itself")]
        if depth > MAX_DEPTH:
            return [_too_deep(field)]
        if isinstance(value, str) and not value.isascii() and _has_surrogates(value):
            remedy = "write whole characters"
            faults.append(Fault(field or source, ascii(value)[:80], "holds half of a surrogate pair", remedy))
        elif not (value is None or isinstance(value, (str, int, float, Mapping, list, tuple))):
            kind = type(value).__name__
            faults.append(Fault(field or source, short(str(value)), f"is a {kind}, which JSON hasn't", "quote it"))
    return faults


if TYPE_CHECKING or not yaml.__with_libyaml__:
    from yaml import SafeLoader as _BaseLoader
else:
    from yaml import CSafeLoader as _BaseLoader


class _Loader(_BaseLoader):
    """Safe YAML with the scalars of YAML 1.2: ``2e-4`` is a number, ``no`` and dates are text."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_KEYS:
            raise yaml.constructor.ConstructorError(None, None, f"more than {MAX_KEYS} keys", node.start_mark)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """Decimal even with a zero in front; YAML 1.1 took that for octal."""
    text = str(loader.construct_scalar(node)).replace("_", "")
    return int(text, 0) if text[:2] in {"0x", "0o"} else int(text)


def _teach(loader: type[_Loader]) -> None:
    loader.yaml_implicit_resolvers = {}
    scalars = {
        "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        "int": (r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
        "float": (
            r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
            list("-+.0123456789"),
        ),
        "merge": (r"<<", ["<"]),
    }
    for name, (pattern, first) in scalars.items():
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(rf"^(?:{pattern})$"), first)
    loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


_teach(_Loader)


def _parse_yaml(text: str, source: str) -> Any:
    try:
        _check_events(text)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _check_keys(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise SpecError([_yaml_fault(error)], source) from None


def _check_events(text: str) -> None:
    """Refuse too many aliases, and nesting that would overrun the stack of libyaml's composer."""
    num_aliases = depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            num_aliases += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if num_aliases > MAX_ALIASES:
            raise _too_much(f"{MAX_ALIASES} aliases", event)
        if depth > MAX_DEPTH:
            raise _too_much(f"{MAX_DEPTH} levels", event)


def _too_much(what: str, event: Any) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, f"more than {what}", event.start_mark)


def _check_keys(root: yaml.Node) -> None:
    """Refuse a key that stands twice (the first value would silently be lost) and one that is no scalar."""
    waiting, known = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        following = list(node.value) if isinstance(node, yaml.SequenceNode) else []
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise yaml.constructor.ConstructorError(None, None, "a key that is no word", key.start_mark)
                if key.value in seen:
                    message = f"the key {short(key.value)} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, message, key.start_mark)
                seen.add(key.value)
                following.append(value)
        # An alias is its anchor's node again.
        waiting += [item for item in following if id(item) not in known]
        known |= {id(item) for item in following}


def _yaml_fault(error: yaml.YAMLError) -> Fault:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
    problem = " ".join((getattr(error, "problem", None) or str(error).splitlines()[0]).split())
    if "stands twice" in problem:
        return Fault(where, "", problem, "remove one")
    if problem.startswith("more than"):
        remedies = {"aliases": "write it with fewer aliases", "levels": "write it flatter"}
        return Fault(where, "", problem, remedies.get(problem.split()[-1], "write fewer keys, and fewer merges"))
    if "could not determine a constructor" in problem:
        return Fault(where, "", f"a tag that no spec has ({problem})", "remove the tag")
    if "another document" in problem:
        return Fault(where, "", "a second document begins", "write one spec to a file")
    return Fault(where, "", f"not YAML ({problem})", "correct the line (quote text with : # { [ or ${ in it)")


def _parse_json(text: str, source: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for number, key in enumerate(keys) if key in keys[:number])
            raise SpecError([Fault(source, "", f"the key {short(twice)} stands twice", "remove one")], source)
        return members

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        if source.endswith(".json"):
            where = f"line {error.lineno}, column {error.colno}"
            fault = Fault(where, "", f"not JSON ({error.msg})", "correct the line")
            raise SpecError([fault], source) from None
        return _parse_yaml(text, source)


def _walk(data: Any) -> Iterator[tuple[str, Any, int]]:
    """Every value with its dotted place and depth, shallow first; lazily, so a caller can stop in an endless tree."""
    waiting = [("", data, 0)]
    while waiting:
        following = []
        for field, value, depth in waiting:
            yield field, value, depth
            items: Any = ()
            if isinstance(value, Mapping):
                items = value.items()
            elif isinstance(value, (list, tuple)):
                items = enumerate(value)
            following += [(f"{field}.{key}" if field else str(key), item, depth + 1) for key, item in items]
            if len(following) > MAX_VALUES:
                break
        waiting = following


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _too_deep(field: str) -> Fault:
    return Fault(field[:80], "", "is nested too deeply", "write it flatter, without an alias that holds itself")
