"""Prompts: texts put into a template, so that words of a language model answer the task.

A template is text with fields, as `{text} It was {mask}.` for a masked model, `{text}? {mask}, {pair}` for pairs of
texts (Gao, Fisch & Chen 2021, Table 1), or `{text} It was` for a causal model, which goes on from its last words. The
outputs are then the logits of one word per class, read at the mask or at the last token.

* A filled template is encoded as *one string*, because tokens do not end where fields end: a byte-level tokenizer joins
  a word with the space before it, and pretraining has seen " great", not " " and "great".
* Only the *texts* are cut: the template's words and mask are what a readout relies on, and they stand last, where plain
  truncation cuts first. The cut is made in characters, behind a token, and the shorter string is encoded anew, so that
  the ids are always the tokenizer's own encoding of a prompt that one can read.

Chat templates are out of scope: turns and role markers are not interpreted, and a template that holds them is refused.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from string import Formatter

from tokenizers import Encoding, Tokenizer

from ntkft._errors import InputError, refuse
from ntkft._special_tokens import MASK_TOKENS
from ntkft.data._listing import listing
from ntkft.data.batches import Tokens, pad_encodings
from ntkft.data.tasks import Examples

_FIELDS = ("text", "pair", "mask")
_CHAT = re.compile(r"{%.*?%}|<\|.*?\|>|\[/?INST]|<(?:start|end)_of_turn>")


@dataclass(frozen=True)
class Template:
    """A template as `parse_template` reads it."""

    source: str
    """As it was written."""
    parts: tuple[tuple[str, str | None], ...]
    """Literal texts, each with the field that follows it: "text", "pair", "mask", or None at the end."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields, in the order in which they stand."""
        return tuple(field for _, field in self.parts if field is not None)

    def fill(self, values: Mapping[str, str]) -> str:
        """The prompt, with values in the place of fields."""
        return "".join(literal + ("" if field is None else values[field]) for literal, field in self.parts)


def parse_template(source: str) -> Template:
    """The template that `source` writes: `{text}` once, `{pair}` and `{mask}` at most once, all else as it stands.

    `{{` and `}}` are braces. Spaces count, at both ends too: a causal model that goes on with " good" is asked by a
    template without a space at its end.

    Raises `InputError`, with all that is wrong: braces that do not match, unknown fields, `{text}` missing, a field
    given twice, or markers of chat templates such as `{% if ... %}`, `<|user|>` and `[INST]`.
    """
    what = f"template {source!r}"
    if markers := dict.fromkeys(_CHAT.findall(source)):
        raise InputError(
            f"{what}: {listing(markers)} is a control marker; chat templates are out of scope, and special tokens are "
            "the tokenizer's to add. Write a prompt in plain words around {text}"
        )
    try:
        parsed = list(Formatter().parse(source))
    except ValueError as error:
        raise InputError(f"{what}: {error}; write {{{{ and }}}} for braces that are no field") from None
    template = Template(source, tuple((literal, _field(*field)) for literal, *field in parsed))
    count = Counter(template.fields)
    problems = [
        f"field {{{name}}} is unknown; there are {{text}}, {{pair}}, {{mask}}" for name in count if name not in _FIELDS
    ]
    problems += [] if count["text"] else ["{text} is missing; it is the place of an example's text"]
    problems += [f"{{{name}}} is given {count[name]} times; wanted once" for name in _FIELDS if count[name] > 1]
    refuse(what, problems)
    return template


def tokenize_prompts(
    examples: Examples | list[str] | tuple[str, ...],
    tokenizer: Tokenizer,
    template: Template,
    *,
    max_length: int,
    multiple: int = 8,
) -> Tokens:
    """Token ids of the filled template, one string per example, with the tokenizer's special tokens of a single text.

    Where a prompt has more than `max_length` tokens (special tokens included) its texts are cut at the end, of a pair
    the longer one first, and spaces before the cut go too. The template's words, its mask and the special tokens stay,
    and so does a token of each text. Padding, `multiple` and `token_type_ids` are as in `tokenize`; `tokenizer` keeps
    its settings.

    A text that holds the mask token is refused: in a string a tokenizer takes it for a mask wherever it stands, and
    a readout could not tell which of two to read. Other special tokens in a text are taken as `tokenize` takes them.

    Raises `InputError` for `{pair}` without pairs or pairs without `{pair}`, for `{mask}` where the tokenizer has no
    mask token, for special tokens written in the template, and, naming examples counted from 1, for blank texts, texts
    with the mask token, and prompts in which `max_length` leaves no room for a token of text.

    Cost: one encoding of every prompt, and about one more of each that is cut.
    """
    texts, pairs = (examples.texts, examples.pairs) if isinstance(examples, Examples) else (examples, None)
    what = f"template {template.source!r}"
    reader = Tokenizer.from_str(tokenizer.to_str())  # tokenizers are mutable: set up a copy
    reader.no_padding()
    reader.no_truncation()
    mask = _mask_token(reader) if "mask" in template.fields else None
    blank = [row for row, text in enumerate(texts) if not text.strip() or (pairs and not pairs[row].strip())]
    problems = _mismatches(template, reader, mask, paired=pairs is not None)
    problems += [f"the text of example {_rows(blank)} is blank; leave it out"] if blank else []
    problems += [f"multiple = {multiple}; wanted 1 or more"] if multiple < 1 else []
    refuse(what, problems)

    columns = {"text": texts, "pair": pairs, "mask": [mask] * len(texts)}
    filled = [{name: columns[name][row] for name in template.fields} for row in range(len(texts))]
    encodings = reader.encode_batch([template.fill(values) for values in filled])
    if mask is not None and (more := [row for row, each in enumerate(encodings) if _count(reader, mask, each) > 1]):
        raise InputError(f"{what}: the text of example {_rows(more)} holds the mask token {mask}; take it out")

    long = [row for row, encoding in enumerate(encodings) if len(encoding) > max_length]
    for row in long:
        encodings[row] = _shorten(template, filled[row], encodings[row], max_length, reader.encode)
    if still := [row for row in long if len(encodings[row]) > max_length]:
        least = max(len(encodings[row]) for row in still)
        raise InputError(
            f"{what}: max_length = {max_length} leaves no room for a token of text beside the template and the "
            f"special tokens in example {_rows(still)}; wanted {least} or more"
        )
    return pad_encodings(encodings, tokenizer, max_length=max_length, multiple=multiple, truncated=len(long))


def _field(name: str | None, form: str | None, conversion: str | None) -> str | None:
    """A field as it was written, so that `{text!r}` is unknown and not taken for `{text}`."""
    return None if name is None else name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")


def _mask_token(tokenizer: Tokenizer) -> str | None:
    """The mask token of this tokenizer, if it has one and finds it in a text."""
    for token in MASK_TOKENS:
        if _count(tokenizer, token, tokenizer.encode(token)) == 1:
            return token
    return None


def _count(tokenizer: Tokenizer, token: str, encoding: Encoding) -> int:
    """How often this token stands in an encoding."""
    token_id = tokenizer.token_to_id(token)
    return 0 if token_id is None else encoding.ids.count(token_id)


def _mismatches(template: Template, tokenizer: Tokenizer, mask: str | None, *, paired: bool) -> list[str]:
    """What is wrong with this template for this tokenizer and these examples."""
    masked, pair = "mask" in template.fields, "pair" in template.fields
    special = [token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special]
    written = listing(token for token in special if any(token in literal for literal, _ in template.parts))
    problems = {
        f"the tokenizer has no mask token ({' or '.join(MASK_TOKENS)}); leave {{mask}} out and end where the word "
        "is to come": masked and mask is None,
        "{pair} asks for pairs and the examples are single texts; leave {pair} out": pair and not paired,
        "the examples are pairs; say with {pair} where their second texts go": paired and not pair,
        f"it holds the special token {written}; a mask is written {{mask}}, and others are added": bool(written),
    }
    return [problem for problem, there in problems.items() if there]


def _shorten(
    template: Template, values: dict[str, str], encoding: Encoding, max_length: int, encode: Callable[[str], Encoding]
) -> Encoding:
    """The prompt with its texts cut until it fits, or until one token is left of each and it does not.

    As many tokens of text go as there are too many. The shorter string may have more tokens than were left (a
    character of several bytes is several tokens with one end, and half of a joined word is encoded in its own way):
    so what is still too many goes next.
    """
    ends = _token_ends(template, values, encoding)
    least = sum(len(each) > 1 for each in ends.values())
    left = sum(len(each) - 1 for each in ends.values())
    while len(encoding) > max_length and left > least:
        left = max(left - (len(encoding) - max_length), least)
        kept = _longest_first([len(each) - 1 for each in ends.values()], left)
        cut = {
            name: values[name][: each[count]].rstrip()
            for (name, each), count in zip(ends.items(), kept, strict=True)
            if count < len(each) - 1
        }
        encoding = encode(template.fill(values | cut))
    return encoding


def _token_ends(template: Template, values: dict[str, str], encoding: Encoding) -> dict[str, list[int]]:
    """Text → 0, and where each of its tokens ends, in characters from its start.

    Its tokens are those from the first to the last that share a character with it: white space may be a token whose
    offsets are empty. Those that end before the first word are left out, since a cut there would leave a blank text.
    """
    ends, start = {}, 0
    for literal, field in template.parts:
        start += len(literal)
        if field is None:
            continue
        text, stop = values[field], start + len(values[field])
        if field != "mask":
            sharing = [i for i, (low, high) in enumerate(encoding.offsets) if max(low, start) < min(high, stop)]
            offsets = encoding.offsets[sharing[0] : sharing[-1] + 1] if sharing else []
            blank = len(text) - len(text.lstrip())
            ends[field] = [0] + [end for _, high in offsets if (end := min(high, stop) - start) > blank]
        start = stop
    return ends


def _longest_first(sizes: list[int], total: int) -> list[int]:
    """How much of each of one or two texts is kept, where the longer is cut first."""
    if len(sizes) == 1:
        return [total]
    short = min(*sizes, total // 2)
    return [short, total - short] if sizes[0] <= sizes[1] else [total - short, short]


def _rows(rows: Iterable[int]) -> str:
    return listing(str(row + 1) for row in rows)
