"""The flags that commands share, and the model, task and numbers that they name.

Flags that change the mathematics have no default: readout, sizes, truncation, seed and form of the kernel must be said.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from ntkft._errors import InputError
from ntkft._tree import digest
from ntkft.batched import compile_outputs
from ntkft.cli.console import progress, say
from ntkft.data import (
    Examples,
    Task,
    Template,
    Tokens,
    load_task,
    one_hot_targets,
    parse_template,
    regression_targets,
    signed_targets,
    tokenize,
    tokenize_prompts,
)
from ntkft.kernels import Kernel, Method, Precision, empirical_ntk
from ntkft.models import Model, load, parse_readout
from ntkft.models.config import Patches
from ntkft.report.prediction import SETS, Problem, set_rows

STANDARD = "standard"
_BATCH = 32


@dataclass(frozen=True)
class Common:
    """Flags of every command."""

    readout: str
    """Outputs of the model: linear:pool=mean,scale=1,seed=0, regression:..., label_words:words=bad|good,position=mask,
    logit_difference:negative=bad,positive=good,position=last, or next_token."""
    n: int
    """Training examples."""
    validation: int
    """Validation examples."""
    test: int
    """Test examples."""
    max_length: int
    """Tokens after which an example is cut; cuts are counted and reported."""
    seed: int
    """Seed of the split."""
    outputs: Literal["full", "trace", "scalar"]
    """Form of the kernel."""
    template: str | None = None
    """Prompt for label words, such as '{text} It was {mask}.', '{text}? {mask}, {pair}' for pairs, or for causal models
    '{text} It was'. The texts alone when not given."""
    model: str = "minilm"
    """minilm, a directory with config.json, tokenizer.json and safetensors, or a Hub id."""
    data: str = "docs"
    """docs, a .tsv, .csv, .jsonl or .parquet file, or hf:OWNER/NAME."""
    kind: Literal["classification", "regression"] | None = None
    """What the labels are; needed for everything but docs."""
    labels: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Keep this class; repeat for each, in the order of their numbers. All classes when never given."""
    text_column: str = "text"
    """Column of the texts."""
    pair_column: str | None = None
    """Column of the second texts of pairs."""
    label_column: str = "label"
    """Column of the labels."""
    drop_empty: bool = False
    """Leave out rows whose text is missing or blank; they are refused otherwise."""
    groups: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (STANDARD,)
    """standard (the model's own map), or NAME=REGEX over parameter paths, repeated for each group."""
    method: Method = "auto"
    """How the kernel is computed; changes its cost only."""
    memory: str | None = None
    """Budget of the kernel's arrays, such as 4GB; half of the free memory when not given."""
    tile: int | None = None
    """Examples a side of a tile of the kernel: what a killed run can lose. Chosen to fit the budget when not given."""
    precision: Precision = "full"
    """full, tensorfloat32 (products on GPUs), or bfloat16 (stored factors: half the memory)."""
    json: bool = False
    """Print the result as JSON."""

    @property
    def task(self) -> str:
        """Data, classes, n and seed in a few words, for figures."""
        data = Path(self.data).name if Path(self.data).is_file() else self.data
        classes = f" ({', '.join(self.labels)})" if self.labels else ""
        return f"{data}{classes}, n = {self.n}, seed {self.seed}"


@dataclass(frozen=True, eq=False)
class Setup:
    """Model and task, tokenised: rows in the order training, validation, test."""

    model: Model
    task: Task
    tokens: Tokens
    targets: np.ndarray
    pretrained: np.ndarray
    parameters_digest: str

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each set."""
        return {name: len(getattr(self.task, name)) for name in SETS}

    def labelled(self) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
        """Set → its inputs and targets, for the sets that are not empty."""
        rows = {name: set_rows(self.sizes, name) for name, size in self.sizes.items() if size}
        return {
            name: ({key: array[part] for key, array in self.tokens.inputs.items()}, self.targets[part])
            for name, part in rows.items()
        }

    def problem(self, kernel: Kernel) -> Problem:
        """The kernel with the targets and pretrained outputs of its rows."""
        return Problem(kernel, self.sizes, self.targets, self.pretrained)


def prepare(common: Common) -> Setup:
    """Load what the flags name, and say what it is. Raises `InputError` on whatever cannot be used."""
    template = read_template(common.template)
    task = load_task(
        common.data,
        n=common.n,
        validation=common.validation,
        test=common.test,
        seed=common.seed,
        kind=common.kind,
        text_column=common.text_column,
        pair_column=common.pair_column,
        label_column=common.label_column,
        labels=common.labels or None,
        drop_empty=common.drop_empty,
    )
    say(task.report())
    classes = len(task.labels)
    words = common.readout.startswith("label_words")
    model = load(common.model, readout=parse_readout(common.readout, classes if words or classes > 2 else 1))
    parts = [task.train, task.validation, task.test]
    pairs = [part.pairs for part in parts]
    rows = Examples(
        sum((part.texts for part in parts), ()),
        None if task.train.pairs is None else sum((pair or () for pair in pairs), ()),
        np.concatenate([part.targets for part in parts]),
    )
    tokens = tokens_for(model, rows, template, common.max_length)
    pretrained = np.asarray(compile_outputs(model.apply_fn, _BATCH)(model.params, tokens.inputs), np.float64)
    targets = _encode(task, rows.targets, pretrained.shape[1])
    return Setup(model, task, tokens, targets, pretrained, digest(model.params))


def read_template(text: str | None) -> Template | None:
    """The prompt template of `--template`, if there is one."""
    return None if text is None else parse_template(text)


def tokens_for(
    model: Model, examples: Examples | tuple[str, ...], template: Template | None, max_length: int
) -> Tokens:
    """Texts as this model reads them, in the template if there is one; says how they are read, and what was cut.

    Raises `InputError` for a model without a tokenizer, for what cannot be tokenised, and for what the model's readout
    cannot read.
    """
    if model.tokenizer is None or isinstance(model.config.front, Patches):
        raise InputError(f"--model: {model.name} reads images; the commands take texts, so use the library for it")
    if template is None:
        tokens = tokenize(examples, model.tokenizer, max_length=max_length)
    else:
        tokens = tokenize_prompts(examples, model.tokenizer, template, max_length=max_length)
    prompt = "" if template is None else f", prompt {template.source!r}"
    say(f"{model.name} ({model.readout}{prompt}): {tokens.report()}")
    model.check_inputs(tokens.inputs)
    return tokens


def compute_kernel(setup: Setup, common: Common, store: Path | None) -> Kernel:
    """The kernel over all rows, read from `store` or computed into it."""
    with progress("kernel") as advance:
        kernel = empirical_ntk(
            setup.model.apply_fn,
            setup.model.params,
            setup.tokens.inputs,
            outputs=common.outputs,
            method=common.method,
            groups=_groups(setup.model, common.groups),
            memory=common.memory,
            tile=common.tile,
            precision=common.precision,
            store=store,
            progress=advance,
            announce=lambda plan: say(str(plan)),
        )
    if not kernel.plan.leaves:  # a method without a plan before its work
        say(str(kernel.plan))
    return kernel


def step_size_of(text: str, largest: float) -> float:
    """A step size: a number, or `F/lambda1`, a multiple of the inverse of the largest eigenvalue."""
    number, _, unit = text.partition("/")
    try:
        value = float(number)
    except ValueError:
        value = np.nan
    if not (value > 0 and unit in ("", "lambda1")):
        raise InputError(f"--step-size: got {text!r}; wanted a positive number, or one like 0.5/lambda1")
    return value / largest if unit else value


def _encode(task: Task, targets: np.ndarray, k: int) -> np.ndarray:
    if task.kind == "regression" and k == 1:
        return regression_targets(targets)
    if len(task.labels) == 2 and k == 1:
        return signed_targets(targets)
    if k == len(task.labels):
        return one_hot_targets(targets, k)
    wanted = "one output" if task.kind == "regression" else f"{len(task.labels)} outputs, one for each class"
    raise InputError(f"--readout: it has {k} outputs; this task wants {wanted}")


def _groups(model: Model, given: tuple[str, ...]) -> dict[str, str]:
    if given == (STANDARD,):
        return model.groups
    pairs = [text.partition("=") for text in given if text != STANDARD]
    bad = [name for name, sign, regex in pairs if not (name and sign and regex)]
    if bad:
        raise InputError(f"--groups: {', '.join(bad)} is not NAME=REGEX; use 'standard' alone or NAME=REGEX repeatedly")
    return {name: regex for name, _, regex in pairs}
