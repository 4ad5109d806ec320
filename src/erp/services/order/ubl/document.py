"""Reads XML into a tree within bounds. There is no DTD: nothing can be defined, expanded or fetched."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from erp.runtime.spi import ErrorCode, FieldError, ProviderError

POINTER = "/params/document"
MAX_DEPTH = 32
MAX_ELEMENTS = 100_000
_SEPARATOR = " "

ORDER = "urn:oasis:names:specification:ubl:schema:xsd:Order-2"
CAC = "urn:oasis:names:specification:ubl:schema:xsd:CommonAggregateComponents-2"
CBC = "urn:oasis:names:specification:ubl:schema:xsd:CommonBasicComponents-2"
EXT = "urn:oasis:names:specification:ubl:schema:xsd:CommonExtensionComponents-2"
_PREFIXES = {CAC: "cac:", CBC: "cbc:", EXT: "ext:", ORDER: ""}


@dataclass(slots=True)
class Element:
    """An element under the prefixes that everybody uses for UBL, whatever the document calls them."""

    name: str
    """``cbc:ID``; ``Order``; ``{urn:other}Name`` in any other namespace."""
    attributes: dict[str, str]
    path: str = ""
    """XPath from the root; set by ``place``."""
    children: list[Element] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The character data directly in it, without white space around."""
        return "".join(self.pieces).strip()

    def all(self, *names: str) -> list[Element]:
        """Return the descendants by a path of names."""
        found = [self]
        for name in names:
            found = [child for element in found for child in element.children if child.name == name]
        return found

    def first(self, *names: str) -> Element | None:
        """Return the first descendant by a path of names."""
        return next(iter(self.all(*names)), None)

    def walk(self) -> Iterator[Element]:
        """Return the element and all below it, in the order of the document."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield element
            waiting += reversed(element.children)


def problem(path: str, message: str) -> FieldError:
    """Return what is wrong at a place of the document."""
    return FieldError(POINTER, f"{path} {message}")


def refusal(*problems: FieldError) -> ProviderError:
    """Return the error of a document."""
    plural = "s" if len(problems) > 1 else ""
    message = f"The document has {len(problems)} error{plural}."
    return ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=list(problems))


def read(document: str) -> Element:
    """Return the root of a document.

    Raises:
        ProviderError: ``invalid_argument`` when it is not XML, has a document type, or exceeds 32 levels or 100,000
            elements.
    """
    builder = _Builder()
    # The text was decoded already: what the document says about its encoding does not matter any more.
    parser = expat.ParserCreate("UTF-8", _SEPARATOR)
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = builder.refuse_document_type
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.add_text
    try:
        parser.Parse(document.encode(errors="surrogatepass"), True)  # noqa: FBT003  (the end of the document)
    except expat.ExpatError as error:
        where = f"line {error.lineno}, column {error.offset + 1}"
        message = f"is not well-formed XML: {expat.ErrorString(error.code)} at {where}. Mend it there."
        raise refusal(FieldError(POINTER, message)) from None
    return builder.document.children[0]


class _Builder:
    """Builds the tree; refuses as soon as a bound is passed, not at the end."""

    def __init__(self) -> None:
        self.document = Element("", {})
        self._open = [self.document]
        self._elements = 0

    def refuse_document_type(self, *_: object) -> None:
        message = "has a document type declaration (<!DOCTYPE ...>), which could define entities. Remove it."
        raise refusal(FieldError(POINTER, message))

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            message = f"has more than {MAX_ELEMENTS} elements. Send the order in several documents."
            raise refusal(FieldError(POINTER, message))
        if len(self._open) > MAX_DEPTH:
            raise refusal(FieldError(POINTER, f"is nested deeper than {MAX_DEPTH} levels. UBL never is."))
        element = Element(_prefixed(name), attributes)
        self._open[-1].children.append(element)
        self._open.append(element)

    def end(self, _: str) -> None:
        self._open.pop()

    def add_text(self, text: str) -> None:
        self._open[-1].pieces.append(text)


def _prefixed(name: str) -> str:
    namespace, _, local = name.rpartition(_SEPARATOR)
    known = _PREFIXES.get(namespace)
    return f"{{{namespace}}}{local}" if known is None else f"{known}{local}"
