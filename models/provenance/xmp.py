"""XMP packets: the mark of a picture that a model made, its description, and all of our metadata.

The mark is IPTC's digital source type `trainedAlgorithmicMedia`: https://cv.iptc.org/newscodes/digitalsourcetype/
A JPEG holds a packet in one segment of 64 KiB; what is longer goes into an extension (XMP, part 3, 1.1.3.1).
"""

from __future__ import annotations

import hashlib
import html
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from models.provenance.texts import dumps, visible

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""Of media that an algorithm made which was trained on others."""

SEGMENT = 65_502 - 100
"""Bytes of a packet that fit into one segment of a JPEG, beside its name."""
DESCRIPTION = 8_000
"""Characters of the prompt in the description of a packet that is otherwise too long; the metadata have all of it."""
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
PART = 65_000
MOST_EXTENDED = 16 * 2**20
"""Bytes of an extension that are read."""

_HEAD = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
_TAIL = '<?xpacket end="r"?>'
_META = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
    ' xmlns:xmpNote="http://ns.adobe.com/xmp/note/"'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:triptych="urn:triptych:1.0"{attributes}>'
    "{properties}</rdf:Description></rdf:RDF></x:xmpmeta>"
)
_MARK = f"<Iptc4xmpExt:DigitalSourceType>{SOURCE_TYPE}</Iptc4xmpExt:DigitalSourceType>"


def packet(metadata: Mapping[str, Any] | None) -> bytes:
    """One packet with the mark and, if there are any, description and metadata."""
    properties = _MARK if metadata is None else _MARK + _said(str(metadata.get("prompt", ""))) + _metadata(metadata)
    return _wrapped(properties)


def jpeg_segments(metadata: Mapping[str, Any] | None) -> list[bytes]:
    """The contents of the APP1 segments of a JPEG: a packet, and its extension if it is too long for one segment."""
    from_all = packet(metadata)
    name = b"http://ns.adobe.com/xap/1.0/\0"
    if metadata is None or len(from_all) <= SEGMENT:
        return [name + from_all]
    rest = _META.format(attributes="", properties=_metadata(metadata)).encode()
    guid = hashlib.md5(rest, usedforsecurity=False).hexdigest().upper()
    prompt = str(metadata.get("prompt", ""))
    short = prompt if len(prompt) <= DESCRIPTION else prompt[:DESCRIPTION] + "…"
    main = _wrapped(_MARK + _said(short), f' xmpNote:HasExtendedXMP="{guid}"')
    parts = [
        EXTENSION + guid.encode() + struct.pack(">II", len(rest), at) + rest[at : at + PART]
        for at in range(0, len(rest), PART)
    ]
    return [name + main, *parts]


def metadata_in(packets: Iterable[str]) -> str:
    """The text of our metadata in the first packet that has any; "" if none has."""
    # Read by pattern, not by an XML parser: the file may come from anyone.
    for text in packets:
        if found := re.search("<triptych:metadata>([^<]*)</triptych:metadata>", text):
            return html.unescape(found.group(1))
    return ""


def source_type_in(text: str) -> str:
    """The IPTC digital source type of a packet, written as an element or as an attribute; "" if it has none."""
    found = re.search(
        r"""DigitalSourceType(?:>\s*|\s*=\s*["']|\s+rdf:resource\s*=\s*["'])([^<"'\s]{1,200})""", text, re.IGNORECASE
    )
    return html.unescape(found.group(1)) if found else ""


def extended(main: str, segments: Iterable[bytes]) -> str:
    """The extension that a JPEG's packet names, put together; "" if it names none or parts of it are missing."""
    named = re.search(r"""HasExtendedXMP\s*(?:=\s*["']|>)([0-9A-Fa-f]{32})""", main)
    if named is None:
        return ""
    parts = dict(_parts(named.group(1).upper().encode(), segments))
    whole, at = bytearray(), 0
    while at in parts and len(whole) <= MOST_EXTENDED:
        total, data = parts[at]
        whole += data
        if not data or len(whole) >= total:
            return whole.decode("utf-8", "replace") if len(whole) == total else ""
        at = len(whole)
    return ""


def _parts(guid: bytes, segments: Iterable[bytes]) -> Iterator[tuple[int, tuple[int, bytes]]]:
    """Offset, whole length and data of each part of the extension."""
    head = len(EXTENSION) + 32 + 8
    for segment in segments:
        if segment.startswith(EXTENSION) and len(segment) >= head and segment[len(EXTENSION) :][:32].upper() == guid:
            total, at = struct.unpack(">II", segment[head - 8 : head])
            yield at, (total, segment[head:])


def _said(prompt: str) -> str:
    text = html.escape(visible(prompt))
    return (
        "<xmp:CreatorTool>Triptych</xmp:CreatorTool>"
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{text}</rdf:li></rdf:Alt></dc:description>'
    )


def _metadata(metadata: Mapping[str, Any]) -> str:
    return f"<triptych:metadata>{html.escape(dumps(metadata))}</triptych:metadata>"


def _wrapped(properties: str, attributes: str = "") -> bytes:
    return (_HEAD + _META.format(attributes=attributes, properties=properties) + _TAIL).encode()
