"""Data: texts and targets from a named source, split with a stated seed, tokenised and bucketed by length."""

from ntkft.data.batches import Bucket as Bucket, Tokens as Tokens, buckets as buckets, tokenize as tokenize
from ntkft.data.builtin import documentation_sentences as documentation_sentences
from ntkft.data.prompts import (
    Template as Template,
    parse_template as parse_template,
    tokenize_prompts as tokenize_prompts,
)
from ntkft.data.targets import (
    one_hot_targets as one_hot_targets,
    regression_targets as regression_targets,
    signed_targets as signed_targets,
)
from ntkft.data.tasks import Examples as Examples, Task as Task, load_task as load_task
