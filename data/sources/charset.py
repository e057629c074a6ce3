"""Decode text: by its byte order mark, the `encoding` of its source, what it declares, as UTF-8, or by a guess."""

import codecs
import io
import re
import unicodedata
from typing import Any, NamedTuple

from sluice.data.sources.compression import Damaged

MIN_CONFIDENCE = 0.6
"""A guess of less confidence is a reject that names the guess."""

_BOMS = (  # the mark of UTF-32 LE begins with the one of UTF-16 LE
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_GUESSED = (
    *("cp1252", "iso8859_2", "cp1250", "cp1251", "koi8_r", "koi8_u", "cp866", "iso8859_5", "iso8859_7", "cp1253"),
    *("cp1254", "cp1255", "cp1256", "cp1257", "cp874", "gb18030", "big5", "big5hkscs", "cp932", "euc_jp", "cp949"),
)
"""Encodings that files of the last decades are in; of those that give the same text, the first is named."""
_SUPERSETS = {
    **{"ascii": "cp1252", "iso8859-1": "cp1252", "iso8859-9": "cp1254", "iso8859-11": "cp874", "tis-620": "cp874"},
    **{"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949", "big5": "big5hkscs"},
}
"""Encodings that browsers use instead of a declared encoding (https://encoding.spec.whatwg.org, names and labels)."""
_CLOSE = 0.1
"""Disorder ("chaos") of a decoding above that of the least disordered one, up to which it may be the right one."""
_FEW = 3
"""Characters beyond ASCII that halve the confidence: a guess needs at least five."""
_SAMPLE_BYTES = 1 << 15
_BLOCK_BYTES = 1 << 18
_HIGH = re.compile(r"[^\x00-\x7f]")
_CONTROLS = bytes({*range(32)} - {*b"\t\n\v\f\r\x1a\x1b"})
_MOST_CONTROLS = 0.005
_MOST_UNASSIGNED = 0.02


class Encoding(NamedTuple):
    """The encoding that a text was decoded from, and how it is known."""

    name: str
    by: str
    """byte order mark, setting, declaration, utf-8 or guess."""
    confidence: float | None = None
    """Confidence of a guess, from 0 to 1."""

    @property
    def evidence(self) -> dict[str, Any]:
        """Metadata of the document; none for UTF-8."""
        if self.name == "utf-8":
            return {}
        known = {"encoding": self.name, "encoding_by": self.by}
        return known if self.confidence is None else {**known, "encoding_confidence": round(self.confidence, 2)}


UTF_8 = Encoding("utf-8", "utf-8")
_NOT_UTF_8 = "not UTF-8 text"


class NotText(ValueError):
    """Bytes that cannot be decoded; the message is the reason of the reject."""


def decode(content: bytes, setting: str | None = None, declared: str | None = None) -> tuple[str, Encoding]:
    """Return the text, without byte order mark, and its encoding. Raises NotText.

    The byte order mark precedes the setting, the setting a declaration, and UTF-8 a guess.
    """
    encoding, size = known_encoding(content, setting)
    if encoding is not None:
        text = _decoded(content[size:], encoding)
    elif declared is not None:
        text, encoding = _as_declared(content, declared)
    else:
        try:
            text, encoding = content.decode("utf-8"), UTF_8
        except UnicodeDecodeError:
            encoding = guess(content)
            text = _decoded(content, encoding)
    if "\0" in text:
        raise NotText("binary")
    if encoding.name != "utf-8":
        # Decoded noise has control and unassigned characters.
        seen = text[:4096]
        odd = sum(unicodedata.category(each) in ("Cc", "Cn", "Co", "Cs") and not each.isspace() for each in seen)
        if _share(odd, seen) > _MOST_UNASSIGNED:
            raise NotText("binary")
    return text, encoding


def known_encoding(head: bytes, setting: str | None) -> tuple[Encoding | None, int]:
    """Return the encoding by byte order mark or setting, if any, and the size of the mark."""
    for mark, name in _BOMS:
        if head.startswith(mark):
            return Encoding(name, "byte order mark"), len(mark)
    if head.startswith(b"\x1b$") or b"\x1b$B" in head or b"\x1b$@" in head:
        # Seven bits, so it is valid UTF-8 too.
        return Encoding("iso2022_jp", "escape sequence") if setting is None else Encoding(setting, "setting"), 0
    return (None if setting is None else Encoding(setting, "setting")), 0


def _decoded(content: bytes, encoding: Encoding) -> str:
    try:
        return content.decode(encoding.name)
    except UnicodeDecodeError:
        named = {"byte order mark": "its byte order mark names", "setting": "is set as its encoding"}
        raise NotText(f"not {encoding.name} text, which {named.get(encoding.by, 'it seems to be')}") from None


def _as_declared(content: bytes, declared: str) -> tuple[str, Encoding]:
    try:
        name = codecs.lookup(declared).name
    except (LookupError, ValueError):
        raise NotText("not text in the charset it names") from None
    # The declared encoding itself decodes a few bytes that its superset has no characters for.
    for each in dict.fromkeys((_SUPERSETS.get(name, name), name) if name != "ascii" else (name,)):
        try:
            return content.decode(each), Encoding(each, "declaration")
        except (LookupError, UnicodeError):
            continue
    raise NotText("not text in the charset it names")


def guess(content: bytes) -> Encoding:
    """Guess the encoding of bytes that are not UTF-8. Raises NotText for binary content and for an uncertain guess.

    charset-normalizer ranks the encodings by the disorder of the text and by its language; uchardet, whose models of
    languages tell Latin-1 from Latin-2, decides between those that are close. Confidence is 1 - disorder, less where
    the two disagree and where few characters bear it.
    """
    import cchardet
    from charset_normalizer import from_bytes

    if b"\0" in content or _share(len(content) - len(content.translate(None, _CONTROLS)), content) > _MOST_CONTROLS:
        raise NotText("binary")
    # Lines that are not ASCII, up to a limit: whole ones, because half a character is an error.
    lines, size = [], 0
    for line in _high_lines(content):
        lines.append(line)
        size += len(line)
        if size >= _SAMPLE_BYTES:
            break
    sample = b"\n".join(lines)
    as_utf_8 = sample.decode("utf-8", "replace")
    wrong = as_utf_8.count("\ufffd")
    # Bytes of other encodings form UTF-8 by chance alone; here most characters beyond ASCII are.
    if len(_HIGH.findall(as_utf_8)) - wrong > 4 * wrong:
        raise NotText("damaged UTF-8 text")
    matches = list(from_bytes(sample, cp_isolation=list(_GUESSED)))
    if not matches:
        raise NotText("not UTF-8 text")
    best, agreed = matches[0], False
    named = cchardet.detect(sample)["encoding"]
    try:
        second = sample.decode(_SUPERSETS.get(codecs.lookup(named or "").name, named or ""))
    except (LookupError, UnicodeError):
        second = ""
    for match in matches:
        if match.chaos <= matches[0].chaos + _CLOSE and str(match) == second:
            best, agreed = match, True
            break
    # Of the encodings that give the same text, the most usual one.
    name = min({best.encoding, *best.could_be_from_charset} & {*_GUESSED}, key=_GUESSED.index)
    borne_by = len(_HIGH.findall(str(best)))
    confidence = (1 - best.chaos) * borne_by / (borne_by + _FEW)
    if not agreed:
        # Nearly all bytes are text in any encoding of single bytes: a plausible language does not settle a dispute.
        is_disputed = second and len(str(best)) == len(sample)
        confidence = min(confidence, 0.5 if is_disputed else 0.5 + best.coherence)
    if confidence < MIN_CONFIDENCE:
        raise NotText(f"not UTF-8 text, perhaps {name}: set encoding={name} to read it so")
    return Encoding(name, "guess", confidence)


def _high_lines(content: bytes) -> list[bytes]:
    return [line for line in content.split(b"\n") if not line.isascii()]


def _share(count: int, content: bytes | str) -> float:
    return count / max(len(content), 1)


class Recoded(io.RawIOBase):
    """The stream of a table as UTF-8, whatever it is encoded in.

    The encoding is decided where the first byte is that is not ASCII. What is not UTF-8 but no certain guess is passed
    on, and its lines are rejects.
    """

    def __init__(self, stream: io.BufferedReader, setting: str | None) -> None:
        self.stream, self.setting = stream, setting
        self.encoding = UTF_8
        self.mark = 0
        """Bytes of the byte order mark."""
        self.decided = False
        """Whether more bytes can change the encoding."""
        self.doubt = _NOT_UTF_8
        """Reason of a reject for a line that is not UTF-8."""
        self._decoder: codecs.IncrementalDecoder | None = None
        self._began = False
        self._rest = b""

    @property
    def is_utf_8(self) -> bool:
        """Return whether the bytes are passed on as they are, and their lines need no others to be understood."""
        return self.encoding.name == UTF_8.name and self.doubt == _NOT_UTF_8

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            content = self.stream.read1(_BLOCK_BYTES)
            if not self._began:
                self._began = True
                encoding, self.mark = known_encoding(content, self.setting)
                content = content[self.mark :] or self.stream.read1(_BLOCK_BYTES)
                if encoding is not None:
                    self._decide(encoding)
            if not self.decided and not content.isascii():
                self._guess(content)
            if self._decoder is None:
                self._rest = content
            else:
                try:
                    self._rest = self._decoder.decode(content, final=not content).encode("utf-8", "surrogatepass")
                except UnicodeDecodeError:
                    raise Damaged(f"not {self.encoding.name} text") from None
            if not content:
                break
        given = self._rest[: len(buffer)]
        self._rest = self._rest[len(given) :]
        buffer[: len(given)] = given
        return len(given)

    def _decide(self, encoding: Encoding) -> None:
        self.encoding, self.decided = encoding, True
        if codecs.lookup(encoding.name).name != "utf-8":
            self.doubt = f"not {encoding.name} text"
            # A wrong byte becomes a lone surrogate, which no UTF-8 has, so its line alone is a reject.
            self._decoder = codecs.getincrementaldecoder(encoding.name)("surrogateescape")

    def _guess(self, content: bytes) -> None:
        """Decide by the first block with other bytes than ASCII: UTF-8 if any line of it is, else a guess."""
        self.decided = True
        high = _high_lines(content)
        if any(_is_utf_8(line) for line in high[:-1]) or _is_utf_8(high[-1], cut=True):
            return
        try:
            # The last line may be cut in a character.
            is_whole = len(high) == 1 or not content.endswith(high[-1])
            encoding = guess(b"\n".join(high if is_whole else high[:-1]))
        except NotText as why:
            self.doubt = str(why) if str(why) != "binary" else self.doubt
        else:
            self._decide(encoding)


def _is_utf_8(line: bytes, *, cut: bool = False) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(line, final=not cut)
    except UnicodeDecodeError:
        return False
    return True
