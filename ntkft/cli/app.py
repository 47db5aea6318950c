"""`main`: choose the command, and turn what goes wrong into one sentence and an exit status.

0: done. 2: input that cannot be used (also unknown flags). 130: interrupted; the same command goes on.
Anything else is a fault of this package and shows its traceback.
"""

import sys
from collections.abc import Sequence

import tyro

from ntkft._errors import InputError
from ntkft.cli.bench import bench
from ntkft.cli.demo import demo
from ntkft.cli.emergence import emergence
from ntkft.cli.finetune import finetune
from ntkft.cli.hmm import hmm
from ntkft.cli.kernel import kernel
from ntkft.cli.law import law
from ntkft.cli.models import models
from ntkft.cli.predict import predict
from ntkft.cli.rank import rank
from ntkft.cli.select import select
from ntkft.cli.spectrum import spectrum
from ntkft.cli.taskvectors import taskvectors
from ntkft.cli.trajectories import trajectories

COMMANDS = {
    "demo": demo,
    "models": models,
    "kernel": kernel,
    "spectrum": spectrum,
    "predict": predict,
    "finetune": finetune,
    "taskvectors": taskvectors,
    "rank": rank,
    "law": law,
    "select": select,
    "trajectories": trajectories,
    "emergence": emergence,
    "hmm": hmm,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command with `arguments` (those of the process for None); returns the exit status."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="ntkft",
            description="Empirical neural tangent kernels of pretrained attention models, and what they say.",
            args=None if arguments is None else list(arguments),
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )
    except InputError as error:
        print(f"ntkft: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ntkft: interrupted; what is finished is kept, and the same command goes on from it", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
