"""Where each key of a TOML document stands: key path -> 1-based line.

`tomllib` tells values but not places, and an operator needs the place. The document has been through
`tomllib` before it comes here, so this scanner may trust its grammar and only has to count.
"""

from __future__ import annotations

import bisect
import re

KeyPath = tuple[str | int, ...]
"""Keys and array indexes from the root: `("trunk", 0, "peers", 1)`."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_BARE_VALUE = re.compile(r"[^,\]}\n#]+")
_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?"{3,5}', re.DOTALL),
    re.compile(r"'''.*?'{3,5}", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\])*"'),
    re.compile(r"'[^']*'"),
)


class KeyLines:
    """The lines of a document that `tomllib` accepts."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._pos = 0
        self._newlines = [match.start() for match in re.finditer("\n", text)]
        self._lines: dict[KeyPath, int] = {}
        self._tables: dict[KeyPath, int] = {}
        self._scan()

    def line(self, path: KeyPath) -> int:
        """Line of the key, of the innermost thing around it that has a line, or 0."""
        for length in range(len(path), 0, -1):
            found = self._lines.get(tuple(path[:length]))
            if found is not None:
                return found
        return 0

    def _scan(self) -> None:
        table: KeyPath = ()
        self._skip(_GAP)
        while self._pos < len(self._text):
            if self._text[self._pos] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip(_GAP)

    def _header(self) -> KeyPath:
        start = self._pos
        array = self._text.startswith("[[", start)
        self._pos += 2 if array else 1
        keys = self._key()
        self._pos += 2 if array else 1
        path: KeyPath = ()
        for key in keys[:-1]:
            path = self._inside((*path, key))
        path = (*path, keys[-1])
        if array:
            index = self._tables[path] = self._tables.get(path, -1) + 1
            self._lines.setdefault(path, self._line_at(start))
            path = (*path, index)
        self._lines.setdefault(path, self._line_at(start))
        return path

    def _inside(self, path: KeyPath) -> KeyPath:
        """The table that a key of a header leads into: of an array of tables, the last one."""
        return (*path, self._tables[path]) if path in self._tables else path

    def _pair(self, table: KeyPath) -> None:
        line = self._line_at(self._pos)
        path = table
        for key in self._key():
            path = (*path, key)
            self._lines.setdefault(path, line)
        self._pos += 1
        self._skip(_BLANK)
        self._value(path)

    def _key(self) -> list[str]:
        """A dotted key; leaves the position on the character after it (`=` or `]`)."""
        keys = []
        while True:
            self._skip(_BLANK)
            if self._text[self._pos] in "\"'":
                quoted = self._take_string()
                keys.append(quoted[1:-1])
            else:
                keys.append(self._take(_BARE_KEY))
            self._skip(_BLANK)
            if self._text[self._pos] != ".":
                return keys
            self._pos += 1

    def _value(self, path: KeyPath) -> None:
        first = self._text[self._pos]
        if first in "\"'":
            self._take_string()
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._take(_BARE_VALUE)

    def _array(self, path: KeyPath) -> None:
        self._pos += 1
        index = 0
        while True:
            self._skip(_GAP)
            if self._text[self._pos] == ",":
                self._pos += 1
            elif self._text[self._pos] == "]":
                self._pos += 1
                return
            else:
                self._lines[(*path, index)] = self._line_at(self._pos)
                self._value((*path, index))
                index += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._pos += 1
        while True:
            self._skip(_GAP)
            if self._text[self._pos] == ",":
                self._pos += 1
            elif self._text[self._pos] == "}":
                self._pos += 1
                return
            else:
                self._pair(path)

    def _take_string(self) -> str:
        for pattern in _STRINGS:
            match = pattern.match(self._text, self._pos)
            if match:
                self._pos = match.end()
                return match.group()
        raise ValueError(f"no string at {self._pos}")

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._pos)
        if match is None:
            raise ValueError(f"no key or value at {self._pos}")
        self._pos = match.end()
        return match.group()

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._pos)
        if match is not None:
            self._pos = match.end()

    def _line_at(self, pos: int) -> int:
        return bisect.bisect_left(self._newlines, pos) + 1
