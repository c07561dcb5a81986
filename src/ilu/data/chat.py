"""Chats in a tokenizer's template: the text, the words of the answer in it, and the end token."""

from collections.abc import Sequence
from typing import Any

from ilu.data.cells import Message, chat_in
from ilu.data.tokenize import Located, Marked, locate, shared
from ilu.system.errors import first_line
from ilu.types import Example

SAME_DAY = "{%- macro strftime_now(form) -%}26 Jul 2024{%- endmacro -%}"
"""A fixed date for chat templates that print the current one, so that the hash of the data does not
change daily. It is the default of Llama 3's template."""
MARK = "\ue000answer\ue001"
"""A content whose place in the template is that of every answer. Private characters: no text has
them, and no template changes them."""


def encode_chat(messages: Any, tokenizer: Any) -> Example:
    """A chat in the tokenizer's template; the words of the last message and its end have a loss.

    The end is the first special token after the words. What the template writes after it, such as
    a line break, is omitted: a model has ended its turn there.
    """
    chat = with_space(marked_chat(chat_in(messages, "messages"), tokenizer))
    (found,) = locate(tokenizer, [chat], special=False)
    stop = end_of_turn(found, chat, tokenizer)
    return Example(found.ids[:stop], found.start, end=stop - found.stop)


def marked_chat(messages: Sequence[Message], tokenizer: Any) -> Marked:
    """The text of a chat, with the place of the words of its last message.

    The place is that of ``MARK`` where it is the last message. So what the template writes before
    the words, such as a role or an empty block of thoughts, belongs to the prompt, with or without
    a generation prompt in the template.
    """
    if not tokenizer.chat_template:
        raise ValueError("the data has chat messages but the tokenizer has no chat template")
    *earlier, last = messages
    text, sample = (
        rendered([*earlier, {**last, "content": content}], tokenizer)
        for content in (last["content"], MARK)
    )
    before, found, after = sample.partition(MARK)
    if not found:
        raise ValueError("the chat template does not write the last message")
    start = shared(before, text)
    ending = shared(after[::-1], text[start:][::-1])
    return Marked(text, start, len(text) - ending)


def with_space(chat: Marked) -> Marked:
    """The same, and spaces before the answer belong to it, as to its first token in most cases.

    So the prompt has the same tokens before every answer.
    """
    return chat._replace(start=len(chat.text[: chat.start].rstrip(" ")))


def rendered(messages: Sequence[Message], tokenizer: Any) -> str:
    """A chat as text; ValueError if the template refuses it."""
    from jinja2 import TemplateError

    template = SAME_DAY + tokenizer.get_chat_template()
    try:
        return str(
            tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=False, chat_template=template
            )
        )
    except (TemplateError, TypeError, LookupError) as error:
        roles = ", ".join(message["role"] for message in messages)
        raise ValueError(
            f"the chat template refuses messages of the roles {roles}: {first_line(error)}"
        ) from error


def end_of_turn(found: Located, chat: Marked, tokenizer: Any) -> int:
    """The number of ids up to the end of the answer's turn.

    Without a special token after the words, the turn ends with the text that the template writes
    there, without blanks at its end unless it has only blanks.
    """
    ends = special_ids(tokenizer)
    for i, token in enumerate(found.ids[found.stop :], start=found.stop + 1):
        if token in ends:
            return i
    after = chat.text[chat.stop :]
    stop = chat.stop + len(after.rstrip() or after)
    return locate(tokenizer, [chat._replace(stop=stop)], special=False)[0].stop


def special_ids(tokenizer: Any) -> set[int]:
    """The tokens that stand for no text: one of them ends a turn."""
    added = {i for i, each in tokenizer.added_tokens_decoder.items() if each.content.strip()}
    return (added | {tokenizer.eos_token_id}) - {tokenizer.unk_token_id, None}


def turn_ends(tokenizer: Any) -> set[int]:
    """The special token, if any, with which the chat template ends an answer."""
    if not tokenizer.chat_template:
        return set()
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    return {encode_chat(turns, tokenizer).ids[-1]} & special_ids(tokenizer)


def question_chat(question: str, tokenizer: Any) -> Marked:
    """A question with an arbitrary answer; the text before the answer is how it is put."""
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "A"}]
    return marked_chat(turns, tokenizer)


def question_ids(question: str, tokenizer: Any) -> list[int]:
    """The ids that a reply to a question follows."""
    chat = with_space(question_chat(question, tokenizer))
    (found,) = locate(tokenizer, [chat], special=False)
    return found.ids[: found.start]


def question_text(question: str, tokenizer: Any) -> str:
    """The text that a reply to a question follows."""
    chat = question_chat(question, tokenizer)
    return chat.text[: chat.start]
