"""A form with one file in it (multipart/form-data), read as it arrives: the file is never held whole."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from sage_gateway.asgi import BodyTooLarge, ClientGone, Receive

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

FORM = b"multipart/form-data"
FILE_FIELD = "file"

FIELDS_LIMIT = 16
"""Fields beside the file."""

FIELD_LIMIT_BYTES = 8 * 1024
"""Longest value of a field beside the file."""

HEADERS_LIMIT_BYTES = 8 * 1024
"""Longest headers of a part of the form."""

SILENCE_S = 25.0
"""Seconds without anything of the form after which it is given up: before the scheduler gives up its upload.

The form has to come to its file in as many: until then nobody has asked whether the caller may upload.
"""


class FormError(Exception):
    """The form cannot be used.

    Attributes:
        param: the field at fault; empty: the form as a whole.
    """

    def __init__(self, what: str, param: str = "") -> None:
        self.param = param
        super().__init__(f"{param}: {what}" if param else what)


class UploadForm:
    """Reads a form: first up to its file, then the file piece by piece, then what follows it.

    Attributes:
        fields: the fields beside the file that were read so far.
        file_name: as the form names the file; empty if it does not.
    """

    def __init__(self, content_type: str, receive: Receive, limit: int) -> None:
        """``limit``: bytes of the whole body.  Raises FormError if the body is no form."""
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != FORM or not boundary:
            raise FormError("the body is no multipart/form-data")
        self.fields: dict[str, str] = {}
        self.file_name = ""
        self._receive = receive
        self._left = limit
        self._pieces: deque[bytes] = deque()  # of the file, that were received and not yet asked for
        self._in_file = False
        self._file_found = False
        self._complete = False
        self._name = ""  # of the part that is read
        self._header, self._value = bytearray(), bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._headers_left = HEADERS_LIMIT_BYTES
        self._content = bytearray()  # of the field that is read
        try:
            self._parser = MultipartParser(boundary, self._callbacks())
        except FormParserError as error:
            raise FormError(f"the body is no form: {error}") from None

    async def begin(self) -> None:
        """Read the form up to its file.

        Raises:
            FormError: it has no file, or is not well formed.
            BodyTooLarge: the body is longer than the limit.
            ClientGone: the connection was closed.
            TimeoutError: nothing came for SILENCE_S, or no file within as long.
        """
        async with asyncio.timeout(SILENCE_S):
            while not self._file_found:
                if not await self._more():
                    raise FormError("is missing", FILE_FIELD)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the file; at its end all fields have been read.  Raises as ``begin``."""
        while True:
            while self._pieces:
                yield self._pieces.popleft()
            if not await self._more():
                return

    async def _more(self) -> bool:
        """Read another piece of the body; return whether there was one."""
        if self._complete:
            return False
        async with asyncio.timeout(SILENCE_S):
            message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message.get("body", b"")
        self._left -= len(body)
        if self._left < 0:
            raise BodyTooLarge
        try:
            self._parser.write(body)
        except FormParserError as error:
            raise FormError(f"the form is not well formed: {error}") from None
        if not message.get("more_body") and not self._complete:
            raise FormError("the form ends too early")
        return True

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begins,
            "on_header_field": lambda data, start, end: self._header_comes(self._header, data[start:end]),
            "on_header_value": lambda data, start, end: self._header_comes(self._value, data[start:end]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._content_begins,
            "on_part_data": self._content_comes,
            "on_part_end": self._part_ends,
            "on_end": self._form_ends,
        }

    def _part_begins(self) -> None:
        self._headers, self._headers_left = {}, HEADERS_LIMIT_BYTES
        self._content = bytearray()

    def _header_comes(self, to: bytearray, piece: bytes) -> None:
        self._headers_left -= len(piece)
        if self._headers_left < 0:
            raise FormError(f"the headers of a part have more than {HEADERS_LIMIT_BYTES} bytes")
        to += piece

    def _header_ends(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header, self._value = bytearray(), bytearray()

    def _content_begins(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = options.get(b"name", b"").decode(errors="replace")
        self._in_file = self._name == FILE_FIELD
        if not self._in_file:
            return
        if self._file_found:
            raise FormError("there is more than one", FILE_FIELD)
        self._file_found = True
        self.file_name = options.get(b"filename", b"").decode(errors="replace")

    def _content_comes(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._pieces.append(data[start:end])
            return
        self._content += data[start:end]
        if len(self._content) > FIELD_LIMIT_BYTES:
            raise FormError(f"has more than {FIELD_LIMIT_BYTES} bytes", self._name[:100])

    def _part_ends(self) -> None:
        if self._in_file:
            return
        self.fields[self._name] = self._content.decode(errors="replace")
        if len(self.fields) > FIELDS_LIMIT:
            raise FormError(f"the form has more than {FIELDS_LIMIT} fields beside the file")

    def _form_ends(self) -> None:
        self._complete = True
