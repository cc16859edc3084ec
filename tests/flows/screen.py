"""A terminal of the simplest kind: what a program that writes to it leaves on the screen."""

import re

_TOKEN = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|\x1b\][^\x07]*\x07|([\r\n])|([^\x1b\r\n]+)")


class Screen:
    """Lines, and a cursor."""

    def __init__(self) -> None:
        self.lines: list[str] = [""]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Take in what was written."""
        for arguments, command, control, plain in _TOKEN.findall(text):
            if control == "\r":
                self._column = 0
            elif control == "\n":
                self._row, self._column = self._row + 1, 0
                if self._row == len(self.lines):
                    self.lines.append("")
            elif plain:
                line = self.lines[self._row].ljust(self._column)
                end = self._column + len(plain)
                self.lines[self._row] = line[: self._column] + plain + line[end:]
                self._column = end
            elif command == "A":
                self._row = max(0, self._row - int(arguments or 1))
            elif command == "K":
                kept = "" if arguments == "2" else self.lines[self._row][: self._column]
                self.lines[self._row] = kept
