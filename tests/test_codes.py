from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from uniaudio2.codes import (
    REASONING_HOP,
    RECONSTRUCTION_HOP,
    UNIT,
    AudioCodes,
    CodesError,
    num_units,
    reasoning_length,
    reconstruction_length,
)


def make(num_samples: int | None = 19_000, largest: int = 500, batch: int = 2) -> AudioCodes:
    generator = torch.Generator().manual_seed(0)
    return AudioCodes(
        torch.randint(largest, (batch, 8, 4), generator=generator),
        torch.randint(largest, (batch, 8, 10), generator=generator),
        num_samples,
    )


@pytest.mark.parametrize("num_samples", [19_000, None])
@pytest.mark.parametrize("largest", [500, 8200, 70_000])
def test_saved_and_loaded(tmp_path: Path, num_samples: int | None, largest: int) -> None:
    codes = make(num_samples, largest)
    path = tmp_path / "new" / "a.safetensors"
    codes.save(path)
    loaded = AudioCodes.load(path)
    assert torch.equal(loaded.reasoning, codes.reasoning)
    assert torch.equal(loaded.reconstruction, codes.reconstruction)
    assert loaded.num_samples == num_samples
    assert loaded.reasoning.dtype == torch.int64
    assert [file.name for file in path.parent.iterdir()] == ["a.safetensors"]


def test_small_codes_take_two_bytes_each(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    make().save(path)
    assert path.stat().st_size < 2 * 8 * 14 * 2 + 400


@pytest.mark.parametrize("num_samples", [1, 959, 1920, 3360, 9599, 9600, 9601, 55_680, 72_000, 720_000, 1_500_000])
def test_lengths(num_samples: int) -> None:
    padded = num_units(num_samples) * UNIT
    assert padded - UNIT < num_samples <= padded
    reasoning, reconstruction = reasoning_length(num_samples), reconstruction_length(num_samples)
    assert num_samples <= reasoning * REASONING_HOP <= padded
    assert num_samples <= reconstruction * RECONSTRUCTION_HOP <= padded


def test_published_lengths() -> None:
    assert (reasoning_length(72_000), reconstruction_length(72_000)) == (16, 38)
    assert (reasoning_length(1_500_000), reconstruction_length(1_500_000)) == (313, 782)
    assert reconstruction_length(55_680) == 29


def test_one_clip_of_a_batch() -> None:
    codes = make()
    assert len(codes) == 2
    assert torch.equal(codes[-1].reasoning, codes.reasoning[1:])
    assert codes[0].num_samples == codes.num_samples
    with pytest.raises(IndexError):
        codes[2]


def test_duration() -> None:
    assert make(12_000).duration_s == 0.5
    assert make(None).duration_s == 0.8


@pytest.mark.parametrize(
    ("reasoning", "reconstruction", "num_samples", "message"),
    [
        (torch.zeros(8, 4, dtype=torch.long), torch.zeros(1, 8, 9, dtype=torch.long), None, r"reasoning .*\(B, K, T\)"),
        (torch.zeros(1, 8, 4), torch.zeros(1, 8, 9, dtype=torch.long), None, "int64"),
        (torch.zeros(1, 8, 4, dtype=torch.long), -torch.ones(1, 8, 9, dtype=torch.long), None, "negative"),
        (torch.zeros(2, 8, 4, dtype=torch.long), torch.zeros(1, 8, 9, dtype=torch.long), None, "batch size"),
        (torch.zeros(1, 8, 4, dtype=torch.long), torch.zeros(1, 8, 9, dtype=torch.long), 20_000, r"0\.\.17280"),
        ("codes", torch.zeros(1, 8, 9, dtype=torch.long), None, "tensor"),
    ],
)
def test_bad_codes_are_refused(
    reasoning: Tensor, reconstruction: Tensor, num_samples: int | None, message: str
) -> None:
    with pytest.raises(CodesError, match=message):
        AudioCodes(reasoning, reconstruction, num_samples)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    def refuse(path: Path, message: str) -> None:
        with pytest.raises(CodesError, match=message) as caught:
            AudioCodes.load(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

    refuse(tmp_path / "missing", "no such file")
    refuse(tmp_path, "folder")
    for name, data in (("empty", b""), ("text", b"hello there"), ("pickle", b"\x80\x04\x95."), ("huge", b"\xff" * 64)):
        (tmp_path / name).write_bytes(data)
        refuse(tmp_path / name, "not a readable safetensors file")
    make().save(tmp_path / "good")
    data = (tmp_path / "good").read_bytes()
    (tmp_path / "cut").write_bytes(data[: len(data) // 2])
    refuse(tmp_path / "cut", "not a readable")
    save_file({"x": torch.zeros(1)}, tmp_path / "other")
    refuse(tmp_path / "other", "no audio codes")

    streams = {"reasoning": torch.zeros(1, 8, 4), "reconstruction": torch.zeros(1, 8, 9)}
    about = {"format": "uniaudio2-codes", "version": "1", "num_samples": "null"}
    save_file(streams, tmp_path / "float", metadata=about)
    refuse(tmp_path / "float", "integers")
    whole = {name: value.long() for name, value in streams.items()}
    for wrong in ("-3", "many", "true", "1e9", "[1]", "1000000"):
        save_file(whole, tmp_path / "length", metadata={**about, "num_samples": wrong})
        refuse(tmp_path / "length", "num_samples")
    save_file(whole, tmp_path / "newer", metadata={**about, "version": "2"})
    refuse(tmp_path / "newer", "version 2")


def test_nothing_is_left_when_writing_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CodesError, match="cannot be written"):
        make().save(tmp_path / "file" / "codes.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CodesError, match="cannot be written"):
        make().save(tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
