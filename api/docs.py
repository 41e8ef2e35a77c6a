"""The description of the API for people: one page at ``/docs``, made from the OpenAPI description.

It loads nothing from elsewhere and runs no script, so it's the same on a machine without a network, and no foreign
code ever sees a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
code, pre { font: 14px/1.45 ui-monospace, monospace; background: #f3f4f6; border-radius: 4px; }
code { padding: 0 .25rem; } pre { padding: .75rem; overflow-x: auto; } pre code { padding: 0; }
section { border-top: 1px solid #d7dbe0; padding-top: .5rem; } h3 code { background: none; padding: 0; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; }
@media (prefers-color-scheme: dark) { body { background: #14171b; color: #e4e7eb; } code, pre { background: #22272e; }
section { border-color: #39414b; } a { color: #7ab7ff; } }
"""


def render_docs(document: Mapping[str, Any]) -> str:
    """The page as HTML."""
    info = document["info"]
    body = "".join(_operations(document))
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(info["title"])}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        f"{_prose(info.get('description', ''))}<p>For programs: "
        f'<a href="/openapi.json">/openapi.json</a></p>{body}</body></html>'
    )


def _operations(document: Mapping[str, Any]) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield (
                f'<section id="{escape(operation["operationId"])}"><h2>{escape(operation["summary"])}</h2>'
                f"<h3><code>{method.upper()} {escape(path)}</code></h3>{_prose(operation.get('description', ''))}"
                f"{_parameters(operation.get('parameters', []))}{_body(operation)}{_answers(operation)}</section>"
            )


def _parameters(parameters: list[dict[str, Any]]) -> str:
    rows = [
        f"<tr><td><code>{escape(item['name'])}</code></td><td>{item['in']}{', needed' if item['required'] else ''}</td>"
        f"<td>{_inline(item.get('description', ''))}{_default(item['schema'])}</td></tr>"
        for item in parameters
    ]
    return f"<table>{''.join(rows)}</table>" if rows else ""


def _default(schema: Mapping[str, Any]) -> str:
    return f" Default: <code>{escape(str(schema['default']))}</code>." if "default" in schema else ""


def _body(operation: Mapping[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {})
    return "".join(
        f"<p>Body as <code>{escape(media)}</code>, {escape(example['summary'])}:</p>"
        f"<pre>{escape(_text(example['value']))}</pre>"
        for media, item in content.items()
        for example in item["examples"].values()
    )


def _answers(operation: Mapping[str, Any]) -> str:
    rows = [
        f"<tr><td>{status}</td><td>{_inline(answer['description'])}</td></tr>"
        for status, answer in sorted(operation["responses"].items())
    ]
    return f"<h4>Answers</h4><table>{''.join(rows)}</table>"


def _prose(text: str) -> str:
    """Paragraphs, fenced code and `code` of the little Markdown that descriptions use."""
    parts = text.strip().split("```")
    return "".join(
        f"<pre>{escape(part.strip())}</pre>" if index % 2 else _paragraphs(part) for index, part in enumerate(parts)
    )


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part.strip())


def _inline(text: str) -> str:
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, indent=2)
