"""What an app wrote, on a terminal: its text and colours, and nothing that drives the terminal."""

from __future__ import annotations

import re

# A sequence that sets colours, or else a character that could move the cursor, change
# the title, or begin what does. The last form is that of C1 controls in UTF-8.
_CONTROL = re.compile(rb"\x1b\[[0-9;:]*m|([\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f])")


def harmless(lines: bytes, *, labelled: bool) -> bytes:
    r"""The lines with each control character written out, such as \x1b.

    Tabs, newlines and colours stay. labelled: something stands before each line,
    which a carriage return within it would let it overwrite.
    """

    def written_out(match: re.Match[bytes]) -> bytes:
        control = match[1]
        if control is None:
            return match[0]
        if control == b"\r" and (not labelled or match.string[match.end() :][:1] in (b"\n", b"")):
            return control
        return b"\\x%02x" % control[-1]

    return _CONTROL.sub(written_out, lines)
