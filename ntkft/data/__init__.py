"""Data: texts and targets from a named source, split with a stated seed, tokenised and bucketed by length."""

from ntkft.data.batches import Bucket as Bucket
from ntkft.data.batches import Tokens as Tokens
from ntkft.data.batches import buckets as buckets
from ntkft.data.batches import tokenize as tokenize
from ntkft.data.builtin import documentation_sentences as documentation_sentences
from ntkft.data.targets import one_hot_targets as one_hot_targets
from ntkft.data.targets import regression_targets as regression_targets
from ntkft.data.targets import signed_targets as signed_targets
from ntkft.data.tasks import Examples as Examples
from ntkft.data.tasks import Task as Task
from ntkft.data.tasks import load_task as load_task
