"""Words for texts that are made up."""

WORDS = (
    "harbour",
    "tide",
    "rope",
    "anchor",
    "ledger",
    "master",
    "crane",
    "lantern",
    "cargo",
    "pilot",
    "winter",
    "storm",
    "bell",
    "quay",
    "toll",
)
