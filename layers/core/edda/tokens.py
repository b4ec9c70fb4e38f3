"""How many tokens a text has, near enough, without a tokenizer.

Every embedding model counts differently, and their vocabularies weigh megabytes. One regular expression that cuts
text into about the pieces such vocabularies have is within a few per cent on average, deterministic and fast (one
scan, in C). Calibrated against the WordPiece tokenizer of all-MiniLM-L6-v2 on passages of about 900 characters
(benchmark: `tests/unit/test_chunking.py::test_tokens_are_estimated_within_a_few_per_cent_in_english`):

    corpus               real/estimate   p95    p99
    scifact (science)    1.04            1.17   1.23
    cranfield            0.95            1.03   1.08
    xquad-en             0.97            1.12   1.20
    state of the union   0.97            1.00   1.02
    technical Markdown   1.07            1.15   1.19

so 200 estimated tokens stay below 256 real ones in more than 99 of 100 English passages. Other scripts follow the
multilingual vocabularies (XLM-R, cl100k): one token for each Chinese, Japanese or Korean character, two or three
letters a token in Cyrillic, Greek, Arabic, Hebrew and the scripts of India and South-East Asia.
"""

import re

_PIECE = re.compile(
    r"[A-Za-z]{1,8}"
    r"|[0-9]{1,3}"
    r"|[\u00c0-\u024f\u1e00-\u1eff][A-Za-z\u00c0-\u024f\u1e00-\u1eff]{0,4}"  # a word after its accent
    r"|[\u0370-\u03ff\u0400-\u052f\u10a0-\u10ff\u0530-\u058f]{1,3}"  # Greek, Cyrillic, Georgian, Armenian
    r"|[\u0590-\u08ff]{1,2}"  # Hebrew, Arabic, Syriac
    r"|[\u0900-\u0fff\u1000-\u109f\u1200-\u137f\u1780-\u17ff]{1,2}"  # India, Thai, Tibetan, Myanmar, Ethiopia, Khmer
    r"|\S"
)


def count_tokens(text: str) -> int:
    """About how many tokens an embedding model sees in `text`; 0 for blank text. Linear."""
    return len(_PIECE.findall(text))
