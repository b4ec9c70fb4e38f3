"""Which legacy charset a text is in, when nothing says so: decode it in each, and see which gives likely letters.

Every candidate knows the letters of its languages, the commonest first. Wrong readings give rare letters, symbols
within words, capitals after small letters. Ties go to the charset that is commoner on the web.
"""

import codecs

_CYRILLIC = ("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъіїєґјњљћђџѓќ",)
_GREEK = ("αοιετσνηυρπκμλςωάίόέήύώγδχθφβξζψϊϋ",)
_HEBREW = ("יוהלאתמרבשנםפחדקעכצגטזסןךץף",)
_ARABIC = ("المينرتوبةعدسفهكقحجشصخطذئزضأءثغىظؤإآپچژگکی،؟",)
_THAI = ("านรกอเงมยลวดทสตะปบคหแจพช่้ัิีุูไใโขผถซธศษณญฐฟำึื์ๆฉภ็ฮ",)
# The letters beyond ASCII, language by language: what is usual in one is a misreading in another.
_WESTERN = (
    "éèàçêôâîûùëïœ", "äüößé", "áéíóúñü", "ãçáéíóâêõúàô", "èàùòìé", "äöåé", "øåæé", "áíéóðþæöýú", "éëïöüó", "àéèóòíçïüú",
)  # fmt: skip
_CENTRAL = ("íáěéřžčšýůúťňďó", "áíéčžšýúľťôňäďĺŕó", "łąęóżśćźń", "áéőöóíüúű", "ăîâţş", "čšžćđ")
_TURKISH = ("ıüşöçğâîû",)
_BALTIC = ("ėšųūžįčąę", "āīēšūļžņķģč", "äõüöšž")
_KANA = ("のいなるとにたしはてをがでれもかっらすりこさんまあくきけだよせえー、。「」・スンルトリイアラ",)
_HANGUL = ("이는다의에을가고하를은로지기사한도인자대어리서나시아해그일수있정들으과여게전보만안것부와스원구장",)
_SIMPLE_HAN = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产，。、：；",
)
_TRADITIONAL_HAN = (
    "的一是在不了有和人這中大為上個國我以要他時來用們生到作地於出就分對成會可主發年動同工也能下過子說產，。、：；",
)

_PUNCTUATION = "“”‘’„–—…«»°§№€£·•\u00a0©®´¿¡"
# Name, languages, and how much commoner than others it is: what decides when the letters do not. UTF-8 and UTF-16 have
# been ruled out before.
_CANDIDATES: tuple[tuple[str, tuple[str, ...], float], ...] = (
    ("cp1252", _WESTERN, 0.05), ("cp1251", _CYRILLIC, 0), ("cp932", _KANA, 0), ("gb18030", _SIMPLE_HAN, 0),
    ("cp949", _HANGUL, 0), ("big5hkscs", _TRADITIONAL_HAN, 0), ("euc_jp", _KANA, 0), ("cp1250", _CENTRAL, 0),
    ("iso8859-2", _CENTRAL, 0), ("koi8-r", _CYRILLIC, 0), ("cp1253", _GREEK, 0), ("iso8859-7", _GREEK, 0),
    ("cp1254", _TURKISH, 0), ("cp1255", _HEBREW, 0), ("cp1256", _ARABIC, 0), ("iso8859-6", _ARABIC, 0),
    ("cp874", _THAI, 0), ("cp1257", _BALTIC, -0.05), ("koi8-u", _CYRILLIC, 0), ("iso8859-5", _CYRILLIC, 0),
    ("cp866", _CYRILLIC, 0), ("mac_cyrillic", _CYRILLIC, -0.05), ("iso8859-15", _WESTERN, 0),
    ("mac_roman", _WESTERN, -0.2), ("cp850", _WESTERN, -0.2), ("cp852", _CENTRAL, -0.2),
)  # fmt: skip
_EAST_ASIAN = frozenset(("cp932", "gb18030", "cp949", "big5hkscs", "euc_jp"))
_RARE_LETTER, _SMALLEST_WEIGHT = -0.2, 0.5
_CLEARLY_BETTER = 0.002
_MOST_UNDECODABLE = 0.02
_EBCDIC = "cp500"


def guess(sample: bytes) -> str:
    """The likeliest charset of a sample of text that is not UTF-8; cp1252 if nothing fits better."""
    if looks_like_ebcdic(sample):
        return _EBCDIC
    best, best_score = "cp1252", 0.0
    for encoding, languages, commonness in _CANDIDATES:
        text = _decoded(sample, encoding)
        if text is None:
            continue
        east_asian = encoding in _EAST_ASIAN
        score = commonness + max(_score(text, letters, east_asian) for letters in languages)
        if score > best_score + _CLEARLY_BETTER:
            best, best_score = encoding, score
    return best


def looks_like_ebcdic(sample: bytes) -> bool:
    """Text of an IBM mainframe: spaces are 0x40, letters lie above 0x80, almost nothing is an ASCII letter."""
    if len(sample) < 32 or sample.count(b"\x40") < len(sample) * 0.08 or b" " in sample[:1000]:
        return False
    text = sample.decode(_EBCDIC)
    likely = sum(character.isalnum() or character in " .,;:-'\"()/\r\n\t\x85" for character in text)
    return likely > 0.95 * len(text)


def east_asian_utf16(sample: bytes) -> str | None:
    """The byte order of Chinese, Japanese or Korean UTF-16 without a mark; None if this is something else.

    Such text has few of the zeros that UTF-16 is known by, but control bytes (0x01 and 0x02 of its punctuation).
    """
    if not sample.translate(None, bytes(range(32, 256)) + b"\t\n\r\x0c"):
        return None
    common = frozenset(_KANA[0] + _HANGUL[0] + _SIMPLE_HAN[0] + _TRADITIONAL_HAN[0])
    for encoding in ("utf-16-le", "utf-16-be"):
        text = sample[: len(sample) // 2 * 2].decode(encoding, "replace")
        east_asian = sum("\u3000" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7a3" for character in text)
        plain = sum(character.isascii() and (character.isprintable() or character.isspace()) for character in text)
        if east_asian + plain > 0.9 * len(text) and sum(character in common for character in text) > 0.2 * len(text):
            return encoding
    return None


def _decoded(sample: bytes, encoding: str) -> str | None:
    """The sample in a charset, None where it has too many bytes that the charset has not."""
    text = codecs.getincrementaldecoder(encoding)("replace").decode(sample)
    return text if text.count("\ufffd") <= _MOST_UNDECODABLE * len(text) else None


def _score(text: str, letters: str, east_asian: bool) -> float:
    """How likely the characters above ASCII are, from -1 to 1, and how well they sit in words."""
    weights = {letter: 1 - (1 - _SMALLEST_WEIGHT) * rank / len(letters) for rank, letter in enumerate(letters)}
    is_latin = letters[0] < "\u0250"
    total, count, previous = 0.0, 0, " "
    for character in text:
        if character > "\x7f":
            count += 1
            total += _weight(character, weights, east_asian)
        if not east_asian and (character > "\x7f" or previous > "\x7f"):
            total -= _misfit(previous, character, is_latin)
        previous = character
    return total / count if count else 0.0


def _misfit(previous: str, character: str, is_latin: bool) -> float:
    """How unlikely two neighbours are, one of them at least not ASCII."""
    if not previous.isalpha():
        return 0.0
    if not character.isalpha():
        return 0.0 if character.isascii() or character in _PUNCTUATION else 0.5
    if character.isupper():
        return 1.0 if previous.islower() else 0.4
    if not is_latin and previous.isascii() != character.isascii():
        return 1.0  # one word in two scripts
    return 0.0


def _weight(character: str, weights: dict[str, float], east_asian: bool) -> float:
    small = character.lower()
    if character == "\ufffd":
        return -3
    if small in weights:
        return weights[small] if small == character else weights[small] * 0.8
    if character in _PUNCTUATION:
        return 0.7
    if not east_asian:
        return _RARE_LETTER if character.isalpha() and character < "\u0e00" else -1
    if "\u4e00" <= character <= "\u9fff":
        return 0.2
    if "\u3040" <= character <= "\u30ff" or "\u3000" <= character <= "\u3020" or "\uff01" <= character <= "\uff5e":
        return 0.4
    if "\uac00" <= character <= "\ud7a3":
        return 0.5 if "이" in weights else -0.5
    return -1
