"""Which language a text is in, if that is clear: statistics over trigrams, by kreuzberg's detector (whatlang), and
function words, which tell of a short text more than they do, and of a list of words that it may be in any."""

from functools import lru_cache
from typing import Any

from edda.terms import languages_of, shows_function_words

# How kreuzberg is asked for text and nothing else (`disable_ocr` is missing in its type stubs).
TEXT_ONLY: dict[str, Any] = {"use_cache": False, "enable_quality_processing": False, "disable_ocr": True}
_SAMPLES, _SAMPLE_CHARACTERS = 3, 800
_FEWEST_LETTERS = 20
_FEWEST_WORDS = 2  # function words, of a language that has any

# ISO 639-3 to 639-1, for the languages that the detector knows.
_PAIRS = """
    afr:af aka:ak amh:am ara:ar aze:az bel:be ben:bn bul:bg cat:ca ces:cs cmn:zh dan:da deu:de ell:el eng:en epo:eo
    est:et fin:fi fra:fr guj:gu heb:he hin:hi hrv:hr hun:hu hye:hy ind:id ita:it jav:jv jpn:ja kan:kn kat:ka khm:km
    kor:ko lat:la lav:lv lit:lt mal:ml mar:mr mkd:mk mya:my nep:ne nld:nl nob:no ori:or pan:pa pes:fa pol:pl por:pt
    ron:ro rus:ru sin:si slk:sk slv:sl sna:sn spa:es srp:sr swe:sv tam:ta tel:te tgl:tl tha:th tuk:tk tur:tr ukr:uk
    urd:ur uzb:uz vie:vi yid:yi zul:zu
"""
_CODES = dict(pair.split(":") for pair in _PAIRS.split())


def language_of(text: str) -> str | None:
    """ISO 639-1 code of the language of `text`, judged by a few samples; None if unsure."""
    sample = _sample(text)
    language = _by_trigrams(sample)
    words, by_words = languages_of(sample)
    if language is None or (shows_function_words(language) and words[language] < _FEWEST_WORDS):
        return by_words[0] if len(by_words) == 1 else None
    return language


def _by_trigrams(sample: str) -> str | None:
    import kreuzberg

    if sum(character.isalpha() for character in sample) < _FEWEST_LETTERS:
        return None
    try:
        result = kreuzberg.extract_bytes_sync(sample.encode(), "text/plain", _config())
    except (kreuzberg.KreuzbergError, RuntimeError, ValueError):
        return None
    detected = result.detected_languages or []
    return _CODES.get(detected[0]) if len(detected) == 1 else None


def _sample(text: str) -> str:
    """The start, the middle and the end of a long text."""
    if len(text) <= _SAMPLES * _SAMPLE_CHARACTERS:
        return text
    step = (len(text) - _SAMPLE_CHARACTERS) // (_SAMPLES - 1)
    return "\n".join(text[index * step : index * step + _SAMPLE_CHARACTERS] for index in range(_SAMPLES))


@lru_cache(maxsize=1)
def _config() -> Any:
    import kreuzberg

    return kreuzberg.ExtractionConfig(
        **TEXT_ONLY,
        language_detection=kreuzberg.LanguageDetectionConfig(enabled=True),
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )
