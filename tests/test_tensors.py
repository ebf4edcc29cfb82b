"""Tensor files: exact round trips, sharding, and nothing that runs code from a file."""

from __future__ import annotations

import argparse
import json
import os
import pickle
from pathlib import Path

import pytest
import torch

from uniaudio2.tensors import (
    LazyTensor,
    TensorFileError,
    load_tensors,
    load_torch,
    open_tensors,
    save_tensors,
)

TENSORS = {
    "matrix": torch.randn(3, 5, generator=torch.Generator().manual_seed(0)),
    "turned": torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).T.half(),
    "bf16": torch.ones(3, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False, True]),
    "int8": torch.arange(-3, 4, dtype=torch.int8),
    "empty": torch.zeros(0, 4),
    "scalar": torch.tensor(0.5),
}


class Evil:
    """Would create a file if it were unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.proof),))


def assert_same(found: dict[str, torch.Tensor]) -> None:
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name


def test_round_trip_and_official_reader(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS, metadata={"format": "pt"})
    assert_same(load_tensors(path))
    assert_same(load_file(path))
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_any_header_length_is_safetensors(tmp_path: Path) -> None:
    """The first byte of a safetensors file can be that of a pickle."""
    path = tmp_path / "a.safetensors"
    for length in range(0, 256, 8):
        save_tensors(path, {"a": torch.ones(1)}, metadata={"pad": "x" * length})
        assert torch.equal(load_tensors(path)["a"], torch.ones(1)), length


def test_shards_and_back_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    written = save_tensors(path, TENSORS, max_shard_bytes=50)
    assert len(written) > 2 and not path.exists()
    assert_same(load_tensors(path))
    assert_same(load_tensors(written[-1]))
    save_tensors(path, TENSORS)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    assert_same(load_tensors(path))


def test_lazy_tensors_are_read_one_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []

    def lazy(name: str) -> LazyTensor:
        def read() -> torch.Tensor:
            order.append(name)
            return torch.zeros(2)

        return LazyTensor((2,), torch.float32, read)

    save_tensors(tmp_path / "a.safetensors", {name: lazy(name) for name in "ab"})
    assert order == ["a", "b"]
    opened = open_tensors(tmp_path / "a.safetensors")
    assert opened["a"].shape == (2,) and opened["a"].num_bytes == 8


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS)

    def fail() -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_tensors(path, {"a": LazyTensor((2,), torch.float32, fail)})
    assert_same(load_tensors(path))
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    with pytest.raises(TensorFileError, match="cannot be written"):
        save_tensors(path / "a.safetensors", TENSORS)  # below a file


def test_mapped_weights_can_be_changed_without_changing_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS)
    load_tensors(path)["matrix"].add_(1)
    assert_same(load_tensors(path))


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_would_run_code_are_refused(tmp_path: Path, nested: bool, zipped: bool) -> None:
    proof, path = tmp_path / "proof", tmp_path / "evil.pt"
    value = {"model": {"a": torch.ones(2)}, "reporter": Evil(proof)} if nested else Evil(proof)
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(TensorFileError, match=r"evil\.pt: refused.*run code.*save only the state dict"):
        load_torch(path)
    with pytest.raises(TensorFileError):
        load_tensors(path)
    with pytest.raises(TensorFileError, match="uniaudio2 convert"):
        open_tensors(path)
    path.write_bytes(pickle.dumps(value))
    for read in (load_torch, load_tensors, open_tensors):
        with pytest.raises(TensorFileError):
            read(path)
    path.rename(tmp_path / "evil.safetensors")
    with pytest.raises(TensorFileError):
        load_tensors(tmp_path / "evil.safetensors")
    assert not proof.exists()


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_state_dicts_of_both_torch_formats_load(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"cfg": argparse.Namespace(a=1), "model": TENSORS}, path, _use_new_zipfile_serialization=zipped)
    assert_same(load_torch(path)["model"])
    with pytest.raises(TensorFileError, match="flat mapping"):
        load_tensors(path)
    torch.save(TENSORS, path, _use_new_zipfile_serialization=zipped)
    assert_same(load_tensors(path))


def damaged(good: bytes) -> dict[str, bytes]:
    """Many ways in which a file can be wrong."""
    size = int.from_bytes(good[:8], "little")
    header = json.loads(good[8 : 8 + size])
    wrong: dict[str, bytes] = {"empty": b"", "text": b"hello, this is not a file of weights", "zeros": bytes(64)}
    for cut in (1, 7, 8, 9, 20, 8 + size, len(good) - 1):
        wrong[f"cut {cut}"] = good[:cut]
    for offset in range(0, min(size, 300), 11):
        wrong[f"flip {offset}"] = good[: 8 + offset] + b"\xff" + good[9 + offset :]
    for name, change in {
        "shape": {"shape": [9, 9]},
        "negative": {"shape": [-1, 5]},
        "type": {"dtype": "F128"},
        "range": {"data_offsets": [0, 10**12]},
        "order": {"data_offsets": [8, 0]},
    }.items():
        changed = {**header, "matrix": {**header["matrix"], **change}}
        text = json.dumps(changed).encode()
        wrong[name] = len(text).to_bytes(8, "little") + text + good[8 + size :]
    return wrong


def test_damaged_files_give_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, TENSORS)
    good = path.read_bytes()
    torch.save(TENSORS, tmp_path / "a.pt")
    zipped = (tmp_path / "a.pt").read_bytes()
    cases = damaged(good) | {f"zip {n}": zipped[:n] for n in range(1, len(zipped) - 1, len(zipped) // 20)}
    for name, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(TensorFileError) as caught:
            load_tensors(path)
        assert "a.safetensors" in str(caught.value) and "\n" not in str(caught.value), name
    with pytest.raises(TensorFileError, match="is a folder"):
        load_tensors(tmp_path)
    with pytest.raises(TensorFileError, match="no such file"):
        load_tensors(tmp_path / "absent.safetensors")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "not json",
        '{"weight_map": 3}',
        '{"weight_map": {"a": 5}}',
        '{"weight_map": {"a": "../x.safetensors"}}',
        '{"weight_map": {"zz": "part.safetensors"}}',
        '{"weight_map": {"a": "gone.safetensors"}}',
    ],
)
def test_bad_shard_indexes_are_refused(tmp_path: Path, text: str) -> None:
    save_tensors(tmp_path / "part.safetensors", TENSORS)
    index = tmp_path / "a.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(TensorFileError):
        load_tensors(tmp_path / "a.safetensors")
