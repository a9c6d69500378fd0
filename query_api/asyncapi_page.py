"""The AsyncAPI document as a page: HTML alone, made once, so that it works wherever the API does."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final, cast

import orjson

from events.contract.schemas import ASYNCAPI

Schema = Mapping[str, Any]

STYLE: Final = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1, h2, h3 { line-height: 1.2; } h2 { border-top: 1px solid var(--line); padding-top: 1.5rem; margin-top: 2.5rem; }
code, pre { font: 0.875em/1.5 ui-monospace, monospace; } pre { background: var(--soft); padding: 1rem; overflow: auto; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid var(--line); }
nav ul { padding-left: 1.2rem; } summary { cursor: pointer; padding: 0.3rem 0; }
.need { font-size: 0.8em; opacity: 0.7; }
"""


def page_of(document: Mapping[str, Any], schemas: Mapping[str, Schema]) -> str:
    """The page; `schemas` has those that messages refer to, by the name of their file."""
    info = document["info"]
    messages: Mapping[str, Any] = document["components"]["messages"]
    channels: Mapping[str, Any] = document["channels"]
    links = [
        *((name, channel["address"]) for name, channel in channels.items()),
        *((name, message["title"]) for name, message in messages.items()),
    ]
    body = [
        f"<h1>{_(info['title'])}</h1>",
        f"<p>{_(info['description'])}</p>",
        f"<p><a href='schemas/{ASYNCAPI}'>AsyncAPI {_(document['asyncapi'])} document</a>",
        " and <a href='schemas'>JSON Schemas</a></p>",
        "<nav aria-label='Contents'><ul>",
        *(f"<li><a href='#{_(name)}'>{_(text)}</a></li>" for name, text in links),
        "</ul></nav><main>",
        *(part for name, channel in channels.items() for part in _channel(name, channel)),
        *(part for name, message in messages.items() for part in _message(name, message, schemas)),
        "</main>",
    ]
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{_(info['title'])}</title><style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _channel(name: str, channel: Mapping[str, Any]) -> Iterator[str]:
    yield f"<section id='{_(name)}'><h2>Topic <code>{_(channel['address'])}</code></h2>"
    yield f"<p>{_(channel['description'])}</p><ul>"
    for reference in channel["messages"].values():
        message = str(reference["$ref"]).rpartition("/")[2]
        yield f"<li><a href='#{_(message)}'>{_(message)}</a></li>"
    yield "</ul></section>"


def _message(name: str, message: Mapping[str, Any], schemas: Mapping[str, Schema]) -> Iterator[str]:
    yield f"<section id='{_(name)}'><h2>{_(message['title'])}</h2>"
    file = str(message["payload"].get("$ref", "")).removeprefix("./")
    schema = schemas.get(file, {})
    if told := schema.get("description") or message.get("summary"):
        yield f"<p>{_(told)}</p>"
    yield f"<h3>Key</h3><p>{_(message['bindings']['kafka']['key']['description'])}, as text</p>"
    yield "<h3>Headers</h3>"
    yield from _table(message["headers"], message["headers"])
    yield "<h3>Value</h3>"
    if schema:
        yield f"<p>JSON, as <a href='schemas/{_(file)}'>{_(file)}</a> has it</p>"
        yield from _table(schema, schema)
    else:
        yield "<p>null</p>"
    for example in message.get("examples", ()):
        shown = orjson.dumps(
            {"headers": example["headers"], "value": example["payload"]}, option=orjson.OPT_INDENT_2
        ).decode()
        yield f"<details><summary>Example</summary><pre>{_(shown)}</pre></details>"
    yield "</section>"


def _table(schema: Schema, root: Schema) -> Iterator[str]:
    yield "<div class='scroll'><table><thead><tr><th>Field</th><th>Type</th><th>What it says</th></tr></thead><tbody>"
    for path, node, required in _fields(schema, root, ""):
        need = "" if required else " <span class='need'>optional</span>"
        yield f"<tr><td><code>{_(path)}</code>{need}</td><td>{_(_kind(node, root))}</td>"
        yield f"<td>{_(node.get('description', ''))}</td></tr>"
    yield "</tbody></table></div>"


def _fields(schema: Schema, root: Schema, prefix: str) -> Iterator[tuple[str, Schema, bool]]:
    schema = _resolved(schema, root)
    for name, node in schema.get("properties", {}).items():
        found = _resolved(node, root)
        yield f"{prefix}{name}", found, name in schema.get("required", ())
        yield from _fields(found, root, f"{prefix}{name}.")


def _kind(node: Schema, root: Schema) -> str:
    node = _resolved(node, root)
    if "anyOf" in node:
        return " or ".join(_kind(one, root) for one in cast("list[Schema]", node["anyOf"]))
    if "const" in node or "enum" in node:
        values: list[object] = [node["const"]] if "const" in node else node["enum"]
        return ", ".join(orjson.dumps(value).decode() for value in values)
    if node.get("type") == "array":
        return f"list of {_kind(node['items'], root)}"
    return str(node.get("format") or node.get("type", "anything"))


def _resolved(node: Schema, root: Schema) -> Schema:
    if "$ref" not in node:
        return node
    named: Schema = root["$defs"][str(node["$ref"]).rpartition("/")[2]]
    return {**named, **{key: value for key, value in node.items() if key != "$ref"}}


def _(text: object) -> str:
    return escape(str(text))
