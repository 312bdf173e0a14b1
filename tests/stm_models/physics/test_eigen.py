"""Eigensolvers: LAPACK one by one, the batch of torch, and the choice between them."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from stm_models.errors import InputError
from stm_models.physics.moire import batched, eigen
from stm_models.physics.moire.branches import create
from stm_models.physics.moire.lattice import build


def hermitian(kind, count, size):
    rng = np.random.default_rng(4)
    values = rng.normal(size=(count, size, size))
    if kind == "complex":
        values = values + 1j * rng.normal(size=values.shape)
    return values + values.conj().swapaxes(1, 2)


@pytest.mark.parametrize("kind", ["real", "complex"])
@pytest.mark.parametrize("solver", [eigen.one_by_one, partial(batched.diagonalise, device="cpu")])
def test_only_the_lower_triangle_counts(kind, solver):
    stack = hermitian(kind, 3, 12)
    energies, vectors = solver([np.asfortranarray(np.tril(matrix)) for matrix in stack])
    assert energies.shape == (3, 12)
    for matrix, values, states in zip(stack, energies, vectors, strict=True):
        np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix), atol=1e-12)
        np.testing.assert_allclose(matrix @ states, states * values, atol=1e-11)
        np.testing.assert_allclose(states.conj().T @ states, np.eye(12), atol=1e-12)


@pytest.mark.parametrize(("name", "start"), [("sym", "bands"), ("broken", "random"), ("collinear", "fm")])
def test_batch_solves_the_branches_like_lapack(name, start):
    """The code of the GPU, on torch's CPU device: energies to 1e-10 of the cell's, densities to 1e-8."""
    branch = create(name, build(2, 2.75), k_count=3, temperature=0.02, dielectric=10.0)
    results = []
    for solver in (branch.eigensolver, partial(batched.diagonalise, device="cpu")):
        branch.eigensolver = solver
        results.append(branch.solve(3.0, 0.2, start, rng=np.random.default_rng(1), tolerance=1e-10))
    lapack, batch = results
    assert batch.converged
    assert batch.energy == pytest.approx(lapack.energy, rel=1e-10)
    np.testing.assert_allclose(batch.energies, lapack.energies, atol=1e-8)
    np.testing.assert_allclose(batch.arrays["density"], lapack.arrays["density"], atol=1e-8)
    bias, broadening = np.array([0.0, 0.05]), np.array([0.03, 0.03])
    np.testing.assert_allclose(branch.ldos(batch, bias, broadening), branch.ldos(lapack, bias, broadening), atol=1e-6)


def test_device_is_chosen_by_name(monkeypatch):
    assert eigen.eigensolver("cpu") is eigen.one_by_one
    with pytest.raises(InputError, match="cpu, cuda, auto"):
        eigen.eigensolver("gpu")
    monkeypatch.setattr(eigen, "_DEVICE_FILES", ("/does/not/exist",))
    assert eigen.eigensolver("auto") is eigen.one_by_one
    with pytest.raises(InputError, match="no GPU"):
        eigen.eigensolver("cuda")
    monkeypatch.setattr(eigen, "_DEVICE_FILES", ("/dev/null",))
    monkeypatch.setattr(batched, "available", lambda: True)
    for device in ("auto", "cuda"):
        chosen = eigen.eigensolver(device)
        assert chosen.func is batched.diagonalise
        assert chosen.keywords == {"device": "cuda"}


def test_no_torch_is_loaded_on_a_cpu():
    code = (
        "import sys; from stm_models.physics.moire import eigen;"
        "eigen._DEVICE_FILES = (); eigen.eigensolver('auto'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.gpu
def test_gpu_gives_the_same_states():
    """Issue's bound: the same results to 1e-6."""
    if not batched.available():
        pytest.skip("torch sees no GPU")
    results = []
    for device in ("cpu", "cuda"):
        branch = create("sym", build(3, 2.75), k_count=3, temperature=0.01, dielectric=10.0, device=device)
        results.append(branch.solve(3.0, 0.1, "bands", tolerance=1e-8))
    assert results[1].energy == pytest.approx(results[0].energy, abs=1e-6)
    np.testing.assert_allclose(results[1].arrays["density"], results[0].arrays["density"], atol=1e-6)
