"""Prompts: the tokenizer's own encoding of the filled template, in which only texts are ever cut."""

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel

from ntkft._errors import InputError
from ntkft.data import Examples, documentation_sentences, parse_template, tokenize_prompts
from ntkft.models import label_words, load
from ntkft.models.vocabulary import mask_token_id
from tests.data.vocabularies import minilm
from tests.minilm import needs_minilm
from tests.models.tiny import BERT, GPT2, byte_pairs, outputs_of, wordpiece, write_checkpoint
from tests.tolerances import INVARIANCE_F32

MASKED, PAIRED, CAUSAL = "{text} It was {mask}.", "{text}? {mask}, {pair}", "Film:{text} It was"
WORDS = ["good", "bad", "goods", "so  bad", "film", "caf\u00e9", "\U0001f600", "<b>", "{text}", "it's", "\n"]


def bert() -> Tokenizer:
    """Word pieces of single letters and a few words, `[CLS] $A [SEP]`."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127)]
    words = [*special, *letters, *(f"##{letter}" for letter in letters), "good", "bad", "It", "was", "film", "##s"]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(dict.fromkeys(words))}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    return tokenizer


def byte_level(*, trim: bool) -> Tokenizer:
    """All bytes and a few joined ones, `<s> $A </s>`; the mask takes the space before it, as in RoBERTa."""
    merges = [("o", "o"), ("Ġ", "g"), ("Ġg", "oo"), ("Ġgoo", "d"), ("a", "s"), ("Ġ", "w"), ("Ġw", "as"), ("d", ".")]
    pieces = [*sorted(ByteLevel.alphabet()), *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<s>", "</s>", AddedToken("<mask>", lstrip=True, special=True)])
    ends = [id_of(tokenizer, token) for token in ("<s>", "</s>")]
    if trim:
        tokenizer.post_processor = processors.RobertaProcessing(("</s>", ends[1]), ("<s>", ends[0]), trim_offsets=True)
    else:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", ends[0]), ("</s>", ends[1])]
        )
    return tokenizer


def metaspace() -> Tokenizer:
    """Characters with U+2581 for spaces, joined over the ends of words; `<s> $A` and a mask."""
    merges = [("o", "o"), ("\u2581", "g"), ("\u2581g", "oo"), ("\u2581goo", "d"), ("d", "\u2581"), ("d\u2581", "I")]
    letters = sorted({letter for word in [*WORDS, MASKED, CAUSAL, "?", ","] for letter in word} | {"\u2581", "?"})
    pieces = ["<s>", "<mask>", "<unk>", *letters, *(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.add_special_tokens(["<s>", "<mask>"])
    return tokenizer


TOKENIZERS = {
    "bert": bert,
    "byte-level": lambda: byte_level(trim=False),
    "byte-level, trimmed offsets": lambda: byte_level(trim=True),
    "metaspace": metaspace,
}
MASK = {"bert": "[MASK]", "byte-level": "<mask>", "byte-level, trimmed offsets": "<mask>", "metaspace": "<mask>"}
everywhere = pytest.mark.parametrize("name", TOKENIZERS)


def texts(count: int, longest: int, seed: int) -> tuple[str, ...]:
    rng = np.random.default_rng(seed)
    return tuple(
        rng.choice(["", " "]) + "good " + " ".join(rng.choice(WORDS, size)) for size in rng.integers(1, longest, count)
    )


def unpadded(tokens) -> list[list[int]]:
    ids = tokens.inputs["input_ids"]
    return [row[:length].tolist() for row, length in zip(ids, tokens.lengths, strict=True)]


def id_of(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None
    return found


def prefixes(text: str) -> list[str]:
    return [text[:end] for end in range(1, len(text) + 1) if text[:end].strip()]


@everywhere
@pytest.mark.parametrize("source", [MASKED, PAIRED, CAUSAL, "{{{text}}} {{mask}} {mask}", "{text}"])
def test_uncut_prompts_are_the_tokenizers_own_encoding_of_the_filled_string(name, source):
    tokenizer, first, second = TOKENIZERS[name](), texts(30, 9, 0), texts(30, 9, 1)
    examples = Examples(first, second if "{pair}" in source else None, np.zeros(30))
    tokens = tokenize_prompts(examples, tokenizer, parse_template(source), max_length=400)
    filled = [source.format(text=a, pair=b, mask=MASK[name]) for a, b in zip(first, second, strict=True)]
    expected = [encoding.ids for encoding in tokenizer.encode_batch(filled)]
    assert unpadded(tokens) == expected
    assert tokens.truncated == 0
    assert set(tokens.inputs) == {"input_ids", "attention_mask"}
    np.testing.assert_array_equal(tokens.inputs["attention_mask"].sum(axis=1), [len(ids) for ids in expected])


@everywhere
@pytest.mark.parametrize("source", [MASKED, CAUSAL, "{text}. good", "{mask}{text}"])
def test_a_cut_prompt_is_the_encoding_of_the_template_around_a_prefix_of_the_text(name, source):
    tokenizer, given, mask = TOKENIZERS[name](), texts(25, 20, 2), MASK[name]
    top = len(tokenizer.encode(source.format(text="good", mask=mask))) + 6
    tokens = tokenize_prompts(given, tokenizer, parse_template(source), max_length=top)
    assert 0 < tokens.truncated < len(given)
    assert tokens.lengths.max() == top
    for text, ids in zip(given, unpadded(tokens), strict=True):
        every = tokenizer.encode_batch([source.format(text=part, mask=mask) for part in prefixes(text)])
        assert ids in [encoding.ids for encoding in every]
        assert ids.count(id_of(tokenizer, mask)) == source.count("{mask}")
        if len(every[-1]) > top:
            assert len(ids) > top - 4, "no more is lost than a character of four bytes"


@everywhere
def test_the_mask_of_a_prompt_is_the_one_that_readouts_read(name):
    tokenizer = TOKENIZERS[name]()
    read = mask_token_id("readout", tokenizer)
    tokens = tokenize_prompts(texts(5, 9, 4), tokenizer, parse_template(MASKED), max_length=64)
    assert [ids.count(read) for ids in unpadded(tokens)] == [1] * 5


def test_a_word_keeps_the_space_with_which_it_was_pretrained():
    tokenizer = byte_level(trim=True)
    tokens = tokenize_prompts(["a film"], tokenizer, parse_template("{text} was good {mask}"), max_length=64)
    pieces = [tokenizer.id_to_token(token) for token in unpadded(tokens)[0]]
    assert pieces == ["<s>", "a", "Ġ", "f", "i", "l", "m", "Ġwas", "Ġgood", "<mask>", "</s>"]


@pytest.mark.parametrize("top", [9, 10, 14, 15])
def test_of_a_pair_the_longer_text_is_cut_first(top):
    tokenizer, rng = bert(), np.random.default_rng(3)
    sizes = rng.integers(1, 12, (40, 2))
    first, second = (tuple(" ".join(["good"] * size) for size in column) for column in sizes.T)
    tokens = tokenize_prompts(Examples(first, second, np.zeros(40)), tokenizer, parse_template(PAIRED), max_length=top)
    for (a, b), ids in zip(sizes.tolist(), unpadded(tokens), strict=True):
        while a + b > top - 5:  # [CLS], ?, [MASK], comma and [SEP]
            a, b = (a - 1, b) if a > b else (a, b - 1)
        at = ids.index(id_of(tokenizer, "?"))
        assert sorted([at - 1, len(ids) - at - 4]) == sorted([a, b])
        assert ids[at : at + 3] == [id_of(tokenizer, token) for token in ("?", "[MASK]", ",")]
        assert (ids[0], ids[-1]) == (2, 3)


def test_the_text_that_is_not_cut_stands_as_it_was_given():
    tokenizer = byte_level(trim=False)
    examples = Examples(("good good good good",), ("b \n",), np.zeros(1))
    (ids,) = unpadded(tokenize_prompts(examples, tokenizer, parse_template("{text}{mask}{pair}"), max_length=10))
    assert ids == tokenizer.encode("good good<mask>b \n").ids


def test_the_tokenizer_keeps_its_settings_and_numbers_the_only_sequence():
    tokenizer = bert()
    tokenizer.enable_padding(pad_id=7, pad_token="(", length=99)
    tokenizer.enable_truncation(3)
    before = tokenizer.to_str()
    tokens = tokenize_prompts(("good", "good bad bad"), tokenizer, parse_template(MASKED), max_length=32)
    assert tokenizer.to_str() == before
    assert tokens.lengths.tolist() == [7, 9]
    assert tokens.inputs["input_ids"].shape == (2, 16)
    assert set(tokens.inputs["input_ids"][tokens.inputs["attention_mask"] == 0]) == {7}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:1 $A:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokens = tokenize_prompts(("good",), tokenizer, parse_template(MASKED), max_length=32)
    np.testing.assert_array_equal(tokens.inputs["token_type_ids"], tokens.inputs["attention_mask"])


def test_no_examples_give_arrays_without_rows():
    assert tokenize_prompts([], bert(), parse_template(MASKED), max_length=16).inputs["input_ids"].shape == (0, 8)


@pytest.mark.parametrize(
    ("attributes", "source", "words", "position", "build"),
    [
        (BERT, "{text} the film was {mask}.", ["good", "bad"], "mask", wordpiece),
        (GPT2, "{text} good, a bad", [" good", " bad"], "last", byte_pairs),
    ],
)
def test_label_words_read_a_prompt_as_they_read_its_filled_string(attributes, source, words, position, build, tmp_path):
    directory = write_checkpoint(tmp_path / "model", attributes)
    model = load(directory, readout=label_words(words, position=position))
    assert model.tokenizer is not None
    given = ("good", "bad good", "good bad bad bad good bad bad good bad bad bad good good")
    tokens = tokenize_prompts(given, model.tokenizer, parse_template(source), max_length=12)
    assert tokens.truncated == 1
    model.check_inputs(tokens.inputs)
    outputs = outputs_of(model, tokens.inputs)
    assert np.isfinite(outputs).all()
    for row, text in enumerate(given[:2]):
        ids = np.array([build().encode(source.format(text=text, mask="[MASK]")).ids])
        alone = outputs_of(model, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        np.testing.assert_allclose(outputs[row], alone[0], atol=INVARIANCE_F32 * np.abs(outputs).max())


@needs_minilm
def test_minilm_reads_every_documentation_sentence_with_the_whole_question():
    tokenizer, given = minilm(), list(documentation_sentences()[0])[:300]
    source = "{text} This is about {mask}."
    tokens = tokenize_prompts(given, tokenizer, parse_template(source), max_length=20)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    end = tokenizer.encode("This is about [MASK].").ids[1:]
    whole = [encoding.ids for encoding in tokenizer.encode_batch([source.format(text=t, mask="[MASK]") for t in given])]
    assert tokens.truncated == sum(len(ids) > 20 for ids in whole) > 50
    for ids, uncut in zip(unpadded(tokens), whole, strict=True):
        # Word pieces are read from the left, so what stands before a cut is read as it was.
        assert ids == (uncut if len(uncut) <= 20 else uncut[: 20 - len(end)] + end)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("It was {mask}.", "{text} is missing; it is the place of an example's text"),
        (
            "{text} {premise} {}",
            r"2 problems\n.*field {premise} is unknown; there are {text}, .*\n.*field {} is unknown",
        ),
        ("{text!r} {text:>9}", r"(?s)field {text!r} is unknown.*field {text:>9} is unknown.*{text} is missing"),
        ("{text} {mask} {mask}", "{mask} is given 2 times; wanted once"),
        ("{text} {text}", "{text} is given 2 times"),
        ("{text} It was {mask", "expected '}' before end of string; write {{ and }} for braces"),
        ("{text} :}", "Single '}' encountered"),
        ("<|user|>{text}<|end|>", r"<\|user\|>, <\|end\|> is a control marker; chat templates are out of scope"),
        ("{% for m in messages %}{text}", "{% for m in messages %} is a control marker; chat templates"),
        ("[INST] {text} [/INST]", r"\[INST\], \[/INST\] is a control marker; chat templates"),
    ],
)
def test_templates_that_cannot_be_read_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        parse_template(source)


PAIR = Examples(("good",), ("bad",), np.zeros(1))


@pytest.mark.parametrize(
    ("examples", "build", "source", "settings", "message"),
    [
        (["good"], bert, PAIRED, {}, "{pair} asks for pairs and the examples are single texts"),
        (PAIR, bert, MASKED, {}, "the examples are pairs; say with {pair} where their second texts go"),
        (["good"], byte_pairs, MASKED, {}, r"the tokenizer has no mask token \(\[MASK\] or <mask>\)"),
        (["good"], bert, "{text} [SEP] {mask}", {}, r"holds the special token \[SEP\]; a mask is written {mask}"),
        (["good", "a [MASK]", "[MASK]"], bert, MASKED, {}, r"text of example 2, 3 holds the mask token \[MASK\]"),
        (["good", " \n"], bert, MASKED, {}, "the text of example 2 is blank; leave it out"),
        (Examples(("a",), ("",), np.zeros(1)), bert, PAIRED, {}, "the text of example 1 is blank"),
        (["bad", "good bad"], bert, MASKED, {"max_length": 6}, "max_length = 6 leaves no .* 1, 2; wanted 7 or more"),
        (PAIR, bert, PAIRED, {"max_length": 6}, "max_length = 6 leaves no room for a token .* 1; wanted 7 or more"),
        (["good"], bert, MASKED, {"multiple": 0}, "multiple = 0; wanted 1 or more"),
    ],
)
def test_what_a_template_cannot_be_filled_with_is_refused(examples, build, source, settings, message):
    with pytest.raises(InputError, match=message):
        tokenize_prompts(examples, build(), parse_template(source), **{"max_length": 64, **settings})


def test_the_shortest_permitted_length_works():
    assert tokenize_prompts(["good bad"], bert(), parse_template(MASKED), max_length=7).lengths.tolist() == [7]
    examples = Examples(("good bad",), ("bad bad",), np.zeros(1))
    assert tokenize_prompts(examples, bert(), parse_template(PAIRED), max_length=7).lengths.tolist() == [7]
