"""How tokenizers name the special tokens that a task relies on: `tokenizer.json` does not say which token is which.

`data` writes the mask into prompts and `models` reads outputs there; neither knows the other.
"""

MASK_TOKENS = ("[MASK]", "<mask>")
"""Of word-piece and of byte-level or sentence-piece tokenizers."""
