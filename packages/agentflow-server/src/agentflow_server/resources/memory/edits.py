"""Text of a block as entries, one a line: edits of single entries, and the limits. Pure; called by the room's service.

`update_memory` and consolidation speak in these edits, because models repeat long texts badly.
"""

from dataclasses import dataclass
from typing import Literal

from agentflow.errors import ValidationError

BlockType = Literal["core", "archival"]
BLOCK_TYPES: tuple[BlockType, ...] = ("core", "archival")
Action = Literal["add", "replace", "remove"]
_BULLETS = ("- ", "* ", "• ")
_SHOWN = 5


class EditError(ValueError):
    """An edit cannot be made; the message tells the model what to do instead."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One change of a block.

    Attributes:
        entry: the new text; for `remove`, what to remove. old: for `replace`, the entry there is, or a part of it that
            no other entry has.
    """

    action: Action
    entry: str
    old: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a block may hold. `entries` None means any number."""

    characters: int
    entries: int | None = None


def lines_of(content: str) -> list[str]:
    """The lines of a block; their numbers begin at 1."""
    return [line.rstrip("\r") for line in content.split("\n")]


def entries_of(content: str) -> list[str]:
    """The lines that say something."""
    return [line for line in lines_of(content) if line.strip()]


def check(block_type: str, content: str, limit: Limit) -> None:
    """Refuse a content that is too large.

    Raises:
        ValidationError: it is; the details say by how much.
    """
    if "\x00" in content:
        raise _refused("content", "must not contain the character NUL")
    over = len(content) - limit.characters
    if over > 0:
        message = (
            f"the {block_type} block may have {limit.characters} characters, this has {len(content)}: {over} too many"
        )
        raise _refused("content", message, limit=limit.characters, actual=len(content), over=over)
    if limit.entries is None:
        return
    count = len(entries_of(content))
    if count > limit.entries:
        over = count - limit.entries
        message = f"the {block_type} block may have {limit.entries} entries (lines), this has {count}: {over} too many"
        raise _refused("content", message, limit=limit.entries, actual=count, over=over)


def _refused(field: str, message: str, **numbers: int) -> ValidationError:
    return ValidationError(
        f"{field}: {message}",
        details=[{"field": field, "message": message, **numbers}],
        hint="Shorten it, or move what is not needed in every request to the archival block." if numbers else None,
    )


def apply(content: str, edit: Edit) -> str:
    """The content after an edit; an edit that was made before changes nothing.

    Raises:
        EditError: the entry to change is not there, or more than one fits.
    """
    lines = lines_of(content) if content else []
    entry = " ".join(edit.entry.split())
    if not entry:
        raise EditError("entry: must not be empty")
    if edit.action == "add":
        return content if _is_there(lines, entry) else "\n".join([*_trimmed(lines), _styled(lines, entry)])
    if edit.action == "remove":
        del lines[_find(lines, entry)]
        return "\n".join(lines)
    if not edit.old.strip():
        raise EditError("old_entry: must be the entry to replace, or a distinct part of it")
    try:
        position = _find(lines, edit.old)
    except EditError:
        if _is_there(lines, entry):
            return content
        raise
    lines[position] = _styled([lines[position]], entry)
    return "\n".join(lines)


def _find(lines: list[str], wanted: str) -> int:
    """The position of the entry that is `wanted`, or the only one that contains it."""
    sought = _bare(wanted)
    same = [position for position, line in enumerate(lines) if line.strip() and _bare(line) == sought]
    found = same or [position for position, line in enumerate(lines) if sought and sought in _bare(line)]
    if len(set(map(_bare, (lines[position] for position in found)))) == 1:
        return found[0]
    if not found:
        raise EditError(f"there is no entry {wanted!r}; recall_memory finds entries as they are written")
    shown = "; ".join(repr(lines[position].strip()) for position in found[:_SHOWN])
    raise EditError(f"{len(found)} entries contain {wanted!r}: give the whole entry. They are: {shown}")


def _is_there(lines: list[str], entry: str) -> bool:
    sought = _bare(entry)
    return any(_bare(line) == sought for line in lines)


def _bare(text: str) -> str:
    text = " ".join(text.split())
    return text[2:].casefold() if text.startswith(_BULLETS) else text.casefold()


def _trimmed(lines: list[str]) -> list[str]:
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines


def _styled(lines: list[str], entry: str) -> str:
    """The entry with the bullet that the last one has."""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    bullet = next((bullet for bullet in _BULLETS if last.startswith(bullet)), "")
    return entry if entry.startswith(_BULLETS) else f"{bullet}{entry}"
