import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ntkft._errors import InputError
from ntkft.taskvectors import (
    add_task_vectors,
    cosine,
    load_task_vector,
    save_task_vector,
    task_vector,
)


def test_vectors_are_added_with_their_coefficients_and_only_those_named():
    params = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}
    one, two = jax.tree.map(lambda leaf: leaf + 2.0, params), jax.tree.map(lambda leaf: leaf - 5.0, params)
    moved = add_task_vectors(params, {"one": one, "two": two}, {"two": -1.0})
    np.testing.assert_array_equal(moved["w"], np.full((2, 3), 5.0))
    both = add_task_vectors(params, {"one": one, "two": two}, {"one": 0.5, "two": 2.0})
    np.testing.assert_array_equal(both["b"], np.full(3, 0.5 * 2 - 2 * 5))
    np.testing.assert_array_equal(
        task_vector(add_task_vectors(params, {"one": one}, {"one": 1.0}), params)["b"], one["b"]
    )
    with pytest.raises(InputError, match=r"no vector for 'three'; there are 'one', 'two'"):
        add_task_vectors(params, {"one": one, "two": two}, {"three": 1.0})


def test_the_cosine_is_over_all_leaves_together():
    first, second = (
        {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]])},
        {"a": np.array([0.0, 1.0]), "b": np.array([[1.0]])},
    )
    assert cosine(first, second) == pytest.approx(4 / 5 / np.sqrt(2))
    assert cosine(first, first) == pytest.approx(1)
    assert np.isnan(cosine(first, jax.tree.map(np.zeros_like, second)))


def test_a_saved_vector_comes_back_to_the_bit_in_its_structure(tmp_path):
    vector = {
        "layers": {0: {"kernel": jnp.arange(6.0).reshape(2, 3)}, 10: {"kernel": jnp.ones(2)}},
        "bias": jnp.zeros(1),
    }
    save_task_vector(tmp_path / "t.safetensors", vector, about={"task": "docs", "epochs": "20"})
    assert [file.name for file in tmp_path.iterdir()] == ["t.safetensors"]
    read, about = load_task_vector(tmp_path / "t.safetensors", like=vector)
    assert jax.tree.structure(read) == jax.tree.structure(vector)
    jax.tree.map(np.testing.assert_array_equal, read, vector)
    assert about == {"task": "docs", "epochs": "20"}


def test_files_that_do_not_fit_are_refused_with_every_reason(tmp_path):
    file = tmp_path / "t.safetensors"
    save_task_vector(file, {"a": jnp.ones(2), "b": jnp.ones(3)}, about={})
    with pytest.raises(InputError) as caught:
        load_task_vector(file, like={"a": jnp.ones(4), "c": jnp.ones(1)})
    for reason in ("'c' is missing", "'b' belongs to no parameter", "'a' has shape [2]; the parameter has [4]"):
        assert reason in str(caught.value)
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match="cannot be read"):
        load_task_vector(file, like={"a": jnp.ones(4)})
    with pytest.raises(InputError, match="cannot be read"):
        load_task_vector(tmp_path / "none", like={"a": jnp.ones(4)})


def test_vectors_of_other_leaves_are_refused():
    params = {"q": jnp.ones((4, 4)), "w": jnp.ones(2)}
    with pytest.raises(InputError, match=r"leaf 'q' is missing in finetuned and \[4, 4\] in pretrained"):
        task_vector({"w": params["w"]}, params)
