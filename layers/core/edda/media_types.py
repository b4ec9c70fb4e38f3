"""Names of the kinds of files that can be read, and of many that cannot, by extension, content type and first bytes."""

PDF, RTF, EPUB, ZIP = "application/pdf", "application/rtf", "application/epub+zip", "application/zip"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
ODT = "application/vnd.oasis.opendocument.text"
ODS = "application/vnd.oasis.opendocument.spreadsheet"
ODP = "application/vnd.oasis.opendocument.presentation"
DOC, XLS, PPT, MSG = (
    "application/msword", "application/vnd.ms-excel", "application/vnd.ms-powerpoint", "application/vnd.ms-outlook",
)  # fmt: skip
TEXT, MARKDOWN, RST, CSV, TSV = "text/plain", "text/markdown", "text/x-rst", "text/csv", "text/tab-separated-values"
HTML, XML, JSON, NDJSON, YAML = "text/html", "application/xml", "application/json", "application/x-ndjson", "text/yaml"
CODE, EMAIL, MBOX = "text/x-source", "message/rfc822", "application/mbox"

PACKAGES = {"word": DOCX, "ppt": PPTX, "xl": XLSX}
MIMETYPE_ENTRIES = {
    EPUB: EPUB,
    ODT: ODT,
    ODT + "-template": ODT,
    ODT + "-master": ODT,
    ODS: ODS,
    ODS + "-template": ODS,
    ODP: ODP,
    ODP + "-template": ODP,
}
BINARY_EXTENSIONS = {
    **dict.fromkeys(("docx", "docm", "dotx", "dotm"), DOCX),
    **dict.fromkeys(("pptx", "pptm", "ppsx", "ppsm", "potx", "potm"), PPTX),
    **dict.fromkeys(("xlsx", "xlsm", "xltx", "xltm"), XLSX),
    **{"pdf": PDF, "epub": EPUB, "odt": ODT, "ott": ODT, "ods": ODS, "odp": ODP, "rtf": RTF},
    **{"doc": DOC, "dot": DOC, "xls": XLS, "xlt": XLS, "ppt": PPT, "pps": PPT, "msg": MSG},
}
_CODE_EXTENSIONS_WORDS = """
    py pyi js mjs cjs jsx ts tsx java kt kts scala c h cc cpp cxx hpp hh cs go rs rb php pl pm lua r jl swift m mm dart
    sh bash zsh fish ps1 bat cmd sql css scss less vue svelte hs ml clj ex exs erl groovy gradle tf hcl proto graphql
    asm s f f90 vb pas nim zig cmake mk dockerfile makefile ini cfg conf toml properties env diff patch tex bib
"""
CODE_EXTENSIONS = frozenset(_CODE_EXTENSIONS_WORDS.split())
TEXT_EXTENSIONS = {
    **dict.fromkeys(("txt", "text", "log", "asc", "srt", "vtt", "adoc", "org", "textile", "robots"), TEXT),
    **dict.fromkeys(("md", "markdown", "mdown", "mkd", "mdx", "qmd", "rmd"), MARKDOWN),
    **dict.fromkeys(("rst", "rest"), RST),
    **{"csv": CSV, "tsv": TSV, "tab": TSV, "json": JSON, "ipynb": JSON, "geojson": JSON, "jsonld": JSON},
    **dict.fromkeys(("ndjson", "jsonl"), NDJSON),
    **dict.fromkeys(("yaml", "yml"), YAML),
    **dict.fromkeys(("html", "htm", "xhtml", "shtml", "xht"), HTML),
    **dict.fromkeys(("xml", "xsl", "xslt", "xsd", "rss", "atom", "svg", "kml", "gpx", "dbk", "dita", "fb2"), XML),
    **{"eml": EMAIL, "mbox": MBOX, "mbx": MBOX},
    **dict.fromkeys(CODE_EXTENSIONS, CODE),
}
TEXT_CONTENT_TYPES = {
    **{kind: kind for kind in (TEXT, MARKDOWN, RST, CSV, TSV, HTML, XML, JSON, NDJSON, YAML, EMAIL, MBOX)},
    **dict.fromkeys(("application/xhtml+xml",), HTML),
    **dict.fromkeys(("text/xml", "application/rss+xml", "application/atom+xml", "image/svg+xml"), XML),
    **dict.fromkeys(("application/jsonl", "application/jsonlines", "application/x-jsonlines"), NDJSON),
    **dict.fromkeys(("application/yaml", "application/x-yaml", "text/x-yaml"), YAML),
    **dict.fromkeys(("text/x-markdown",), MARKDOWN),
    **dict.fromkeys(("text/prs.fallenstein.rst",), RST),
}
# Bytes that begin files without text for us: archives, pictures, sound, programs, certificates, fonts, databases.
UNSUPPORTED_MAGIC = (
    b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"\x28\xb5\x2f\xfd", b"ITSF", b"MSCF", b"!<arch>",
    b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\x00", b"MM\x00*", b"RIFF", b"OggS", b"fLaC", b"ID3", b"\xff\xfb",
    b"\x7fELF", b"MZ\x90", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\x00asm", b"SQLite format 3\x00", b"wOFF",
    b"OTTO", b"\x00\x01\x00\x00\x00", b"!BDN", b"AC10", b"%!PS", b"8BPS", b"PAR1", b"Obj\x01", b"\x89HDF",
    b"\x30\x80\x06",
)  # fmt: skip
