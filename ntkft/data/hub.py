"""Tables from the Hugging Face Hub, through the optional package `datasets`."""

from importlib import import_module

import pyarrow as pa

from ntkft._errors import InputError


def read_hub(name: str) -> pa.Table:
    """The `train` split of the data set `OWNER/NAME` or `OWNER/NAME/CONFIG`.

    Only that split is read: validation and test sets are drawn from it like from a file, and the published test
    splits often have no labels. Columns of class numbers become class names, and -1, the Hub's mark for "not
    labelled", a missing value. Raises `InputError` if `datasets` is not installed or cannot load the data.
    """
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise InputError(
            f"data 'hf:{name}': needs the package datasets; install it with: pip install 'ntkft[datasets]'"
        ) from error
    owner_and_name, config = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:]) or None
    try:
        rows = datasets.load_dataset(owner_and_name, config, split="train")
    except Exception as error:  # whatever network, cache and builder raise, the data cannot be had
        raise InputError(
            f"data 'hf:{name}': cannot be loaded ({type(error).__name__}: {error}); wanted hf:OWNER/NAME or "
            "hf:OWNER/NAME/CONFIG with a split 'train', and a network connection or a filled cache"
        ) from error
    table = rows.with_format("arrow")[:]
    for place, column in enumerate(table.column_names):
        feature = rows.features[column]
        if isinstance(feature, datasets.ClassLabel):
            table = table.set_column(place, column, _class_names(table.column(column), feature.names))
    return table


def _class_names(numbers: pa.ChunkedArray, names: list[str]) -> pa.Array:
    return pa.array(
        [None if number is None or number < 0 else names[number] for number in numbers.to_pylist()], pa.string()
    )
