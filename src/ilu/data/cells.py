"""Values of a row as text or as chat messages; everything else is refused with its column."""

import math
from collections.abc import Mapping
from typing import Any

from ilu.data.readers import Row

QA = ("question", "answer")
Message = dict[str, Any]
QUESTIONERS = ("user", "human", "system", "developer", "tool")
"""Roles that the last message of a chat cannot have: it has the loss, and is the model's."""
ANSWERS = ("completion", "answer")
"""Columns in which a list of texts is a list of alternatives; the first is used."""


def is_missing(value: Any) -> bool:
    """Whether a cell is empty: null, an empty text or list, or NaN, as pandas writes a null."""
    return value in (None, "", []) or (isinstance(value, float) and math.isnan(value))


def text_in(value: Any, where: str) -> str:
    """The text of a cell; a number counts as text. ValueError for every other value."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{where} is {described(value)}, and must be text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start]
        raise ValueError(
            f"{where} has half of a surrogate pair ({half!r}) at character {error.start}, which "
            "is no Unicode text: repair it, or leave it out"
        ) from None
    return value


def column_text(row: Row, column: str) -> str:
    """The text in a column of a row; ValueError for a row without it."""
    if column not in row:
        raise ValueError(f"it has no {column}; it has: {', '.join(row)}")
    return text_in(row[column], column)


def described(value: Any) -> str:
    """The kind of a value, for an error message."""
    if value is None:
        return "null"
    if isinstance(value, float):
        return f"{value}, which stands for a missing value" if math.isnan(value) else f"{value}"
    known = {list: "a list", dict: "an object", bool: "true or false", bytes: "binary data"}
    return known.get(type(value), f"a {type(value).__name__}")


def readable(row: Row, layout: tuple[str, ...]) -> Row:
    """The row with text in every column of the layout, or with the column ``messages`` alone.

    Prompt and completion may be lists of messages. Of a list of texts as an answer the first is
    used.
    """
    if layout == ("messages",):
        return {"messages": chat_in(row.get("messages"), "messages")}
    if layout == ("prompt", "completion") and any(map(has_messages, map(row.get, layout))):
        return {"messages": joined_chat(row.get("prompt"), row.get("completion"))}
    return {column: cell(row.get(column), column) for column in layout}


def readable_in(row: Row, layout: tuple[str, ...], where: str) -> Row:
    """The same; the error begins with the place of the row."""
    try:
        return readable(row, layout)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def cell(value: Any, column: str) -> str:
    """The text in a column of the layouts; a prompt may be empty."""
    if column == "prompt" and value is None:
        return ""
    if column in ANSWERS and isinstance(value, list) and value:
        return text_in(value[0], f"the first entry of {column}")
    if column == "text" and isinstance(value, int | float):
        raise ValueError(f"{column} is a number ({value}), and must be text: quote it if it is one")
    return text_in(value, column)


def is_several(item: tuple[str, Any]) -> bool:
    """Whether a column with its value is a list of alternative answers."""
    column, value = item
    return (
        column in ANSWERS and isinstance(value, list) and len(value) > 1 and not has_messages(value)
    )


def has_messages(value: Any) -> bool:
    """Whether a cell is a list of chat messages."""
    return isinstance(value, list) and any(isinstance(each, dict) for each in value)


def joined_chat(prompt: Any, completion: Any) -> list[Message]:
    """Prompt and completion as one chat; either may be a text or a list of messages."""
    before = prompt if has_messages(prompt) else turns("user", prompt, "prompt")
    after = completion if has_messages(completion) else turns("assistant", completion, "completion")
    if len(after) != 1:
        raise ValueError(
            f"completion has {len(after)} messages, and must have one: move the others to prompt"
        )
    return chat_in([*before, *after], "prompt and completion")


def turns(role: str, value: Any, column: str) -> list[Message]:
    """A text as a message; none for an empty prompt."""
    text = cell(value, column)
    return [{"role": role, "content": text}] if text or role == "assistant" else []


def chat_in(messages: Any, where: str) -> list[Message]:
    """Chat messages with text as content, and without the keys that are null.

    Parquet files have every key in every message, and templates ask which keys a message has.
    """
    if not isinstance(messages, list) or not messages:
        raise ValueError(f"{where} must be a list of objects with role and content")
    found = [message_in(each, f"message {i} of {where}") for i, each in enumerate(messages, 1)]
    role = found[-1]["role"]
    if found[-1]["content"] == "":
        calls = ": its tool calls are not read" if found[-1].get("tool_calls") else ""
        raise ValueError(f"the last message of {where} has no text, so nothing has a loss{calls}")
    if role in QUESTIONERS:
        raise ValueError(
            f"the last message of {where} has the role {role!r}, and only the last message has a "
            "loss: end each chat with a message of the assistant"
        )
    return found


def message_in(message: Any, where: str) -> Message:
    """One message; the text parts of its content are joined."""
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        keys = f": it has {', '.join(map(str, message))}" if isinstance(message, Mapping) else ""
        raise ValueError(f"{where} must be an object with role and content{keys}")
    kept = {str(key): value for key, value in message.items() if value is not None}
    role = text_in(message["role"], f"the role of {where}")
    calls = message["content"] is None and kept.get("tool_calls")
    content = "" if calls else content_in(message["content"], f"the content of {where}")
    return {**kept, "role": role, "content": content}


def content_in(content: Any, where: str) -> str:
    """The text of a message; parts other than text are refused."""
    if not has_messages(content):
        return text_in(content, where)
    kinds = {str(part.get("type")) if isinstance(part, dict) else "text" for part in content}
    if other := sorted(kinds - {"text"}):
        raise ValueError(f"{where} has a part of type {other[0]}, and must be text")
    parts = (part.get("text") if isinstance(part, dict) else part for part in content)
    return "".join(text_in(part, f"a part of {where}") for part in parts)
