"""Two processes of `jax.distributed` share a kernel's tiles through its store, to the bytes of one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

import ntkft
from tests.cases import CASES
from tests.tolerances import INVARIANCE_F32, kernel_error

ROOT = Path(__file__).parents[2]
SECONDS = 60

# One process of two. Before its share of the kernel it asks for devices that are not its own.
PROCESS = """
import sys
import jax
port, index, store = sys.argv[1:]
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(index))
import tests.conftest  # the same numbers as here
from ntkft import InputError
from tests.kernels.test_processes import kernel_of_case

assert jax.process_count() == 2 and jax.process_index() == int(index)
try:
    kernel_of_case(store, mesh=jax.sharding.Mesh(jax.devices(), ("data",)))
except InputError as error:
    print(error)
shares = []
kernel_of_case(store, progress=lambda done, total: shares.append(total))
print("pairs", set(shares))
"""


def kernel_of_case(store, **options):
    """The float32 kernel of seven examples in six tiles, three for each of two processes."""
    case = CASES["mlp"]()
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), case.params)
    return ntkft.empirical_ntk(
        case.apply_fn,
        params,
        case.inputs,
        outputs="full",
        method="factors:materialise",
        memory="100MB",
        tile=3,
        check=False,
        store=store,
        **options,
    )


def test_two_processes_write_the_bytes_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, port, str(index), str(tmp_path / "two.zarr")],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    try:
        said = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], [errors[-2000:] for _, errors in said]

    one = kernel_of_case(tmp_path / "one.zarr")
    two = ntkft.read_kernel(tmp_path / "two.zarr")
    assert one.plan.tiles == two.plan.tiles == 6
    assert kernel_error(two.total, one.total) <= INVARIANCE_F32
    assert np.array_equal(two.total, one.total)
    parameters = one.plan.parameters
    # Tiles (0,0), (1,1), (2,1) and (1,0), (2,0), (2,2): 6 + 6 + 3 and 9 + 3 + 1 pairs.
    for (output, _), pairs in zip(said, (15, 13), strict=True):
        assert f"pairs {{{pairs * parameters}}}" in output
        assert "devices of other processes" in output
        assert "wanted a mesh over jax.local_devices()" in output
