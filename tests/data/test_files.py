"""Files: one table whatever the format, and one clear sentence when there is none."""

import csv
import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from ntkft._errors import InputError
from ntkft.data import columns
from ntkft.data.files import READERS, read_file

ROWS = {
    "text": ['a "quoted, word', "comma, semicolon; naïve — crème brûlée", "NA", "2026-01-31", 'ends in "'],
    "label": ["1", "0", "1", "0", "1"],
}


def write(path, rows):
    """`rows` as a user would write them in the format of `path`: labels are numbers where the format has them."""
    names, values = list(rows), list(zip(*rows.values(), strict=True))
    match path.suffix:
        case ".tsv":
            path.write_text("\n".join("\t".join(row) for row in [names, *values]) + "\n", encoding="utf-8")
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([names, *values])
        case ".jsonl":
            lines = [json.dumps({"text": text, "label": int(label)}) for text, label in values]
            path.write_text("\n".join(lines), encoding="utf-8")
        case ".parquet":
            table = pa.table({"text": rows["text"], "label": [int(label) for label in rows["label"]]})
            parquet.write_table(table, path)
    return path


@pytest.mark.parametrize("ending", READERS)
def test_every_format_gives_the_same_rows(tmp_path, ending):
    table = read_file(write(tmp_path / f"rows{ending}", ROWS))
    assert table.column_names == ["text", "label"]
    assert columns.texts(table, "text") == (ROWS["text"], [])
    assert columns.class_names(table, "label") == (ROWS["label"], [])
    assert columns.numbers(table, "label") == ([1.0, 0.0, 1.0, 0.0, 1.0], [])


def test_texts_of_digits_or_dates_keep_their_characters(tmp_path):
    rows = {"text": ["2026-01-31", "2026-02-01 10:00:00"], "label": ["1", "0"]}
    for ending in READERS:
        table = read_file(write(tmp_path / f"dates{ending}", rows))
        assert columns.texts(table, "text") == (rows["text"], [])
    table = read_file(write(tmp_path / "digits.csv", {"text": ["007", "1e3"], "label": ["1", "0"]}))
    assert columns.texts(table, "text") == (["007", "1e3"], [])


def test_csv_may_hold_line_breaks_within_quotes(tmp_path):
    rows = {"text": ["first\nsecond" * 200, "third"] * 1000, "label": ["a", "b"] * 1000}  # more than one block
    assert columns.texts(read_file(write(tmp_path / "lines.csv", rows)), "text") == (rows["text"], [])


def test_json_numbers_may_widen_anywhere_in_a_large_file(tmp_path):
    lines = [json.dumps({"text": "x" * 1000, "label": 1})] * 3000 + [json.dumps({"text": "y", "label": 0.5})]
    path = tmp_path / "large.jsonl"
    path.write_text("\n".join(lines))
    values, problems = columns.numbers(read_file(path), "label")
    assert (len(values), values[0], values[-1], problems) == (3001, 1.0, 0.5, [])


def test_real_tsv_files_are_read_row_by_row(shared_data):
    for name in ("sst2/train", "sst2/dev", "trec/train", "trec/test", "cr/all"):
        path = shared_data / "text" / f"{name}.tsv"
        table = read_file(path)
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").split("\n")[1:] if line]
        assert table.column("text").to_pylist() == [text for text, _ in lines]
        assert table.column("label").to_pylist() == [label for _, label in lines]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.tsv", None, r"data '.*missing\.tsv': there is no such file"),
        ("rows.xlsx", "x", r"the name must end in one of \.tsv, \.csv, \.jsonl, \.parquet"),
        ("docs2", None, r"data '.*docs2': the name must end in one of \.tsv"),
        ("empty.csv", "", r"data '.*empty\.csv': the file is empty"),
        ("ragged.tsv", "text\tlabel\na\t1\nb\tc\t0\n", r"cannot be read as \.tsv: .*Expected 2 columns, got 3"),
        ("broken.jsonl", '{"text": "a", "label"\n', r"cannot be read as \.jsonl: "),
        ("broken.parquet", "not parquet at all", r"cannot be read as \.parquet: "),
        ("latin1.tsv", "text\tlabel\ncr\xe8me\t1\n".encode("latin-1"), r"cannot be read as \.tsv: .*UTF8"),
    ],
)
def test_files_that_cannot_be_read_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        read_file(path)


def test_missing_and_repeated_columns_are_listed_with_those_there_are():
    table = pa.Table.from_arrays([pa.array(["a"])] * 3, names=["sentence", "score", "score"])
    missing, repeated = columns.check_columns(table, ["text", "score"])
    assert missing == "there is no column 'text'; the columns are 'sentence', 'score', 'score'"
    assert repeated == "column 'score' occurs several times; the columns are 'sentence', 'score', 'score'"


def test_a_header_alone_has_no_rows(tmp_path):
    path = tmp_path / "header.csv"
    path.write_text("text,label\n")
    assert columns.check_columns(read_file(path), ["text", "label"]) == ["there are no rows"]


@pytest.mark.parametrize(
    ("read", "values", "problems"),
    [
        (
            columns.texts,
            ["a", None, " \t", ""],
            ["the text is missing in row 2 (None)", "the text is empty in row 3 (' \\t'), 4 ('')"],
        ),
        (columns.texts, [None, None], ["the text is missing in row 1 (None), 2 (None)"]),
        (columns.texts, [1.5, 2.5], ["holds double; wanted text"]),
        (columns.class_names, ["a", " ", None], ["the label is missing in row 2 (' '), 3 (None)"]),
        (columns.class_names, [1.0, float("nan")], ["the label is missing in row 2 (nan)"]),
        (columns.class_names, [["a"], ["b"]], ["wanted one label a row"]),
        (
            columns.numbers,
            ["1", "good", "-inf", ""],
            ["is missing in row 4 ('')", "number in row 2 ('good'), 3 ('-inf')"],
        ),
        (columns.numbers, [True, False], ["this is not a finite number in row 1 (True), 2 (False)"]),
        (columns.numbers, ["x"] * 10, ["7 ('x'), 8 ('x') and 2 more"]),
    ],
)
def test_unusable_values_are_named_by_row(read, values, problems):
    _, found = read(pa.table({"column": values}), "column")
    assert len(found) == len(problems)
    for said, expected in zip(found, problems, strict=True):
        assert said.startswith("column 'column'")
        assert said.endswith(expected)


def test_dictionary_encoded_text_is_text():
    table = pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()})
    assert columns.texts(table, "text") == (["a", "b", "a"], [])
