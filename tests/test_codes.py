import os
import pickle
import zipfile
from fractions import Fraction
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
    Stream,
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


# -- the published pair of files --------------------------------------------------------------------------------------


class Evil:
    """Would create a folder if it were unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.proof),))


def test_the_published_pair_comes_back(tmp_path: Path) -> None:
    codes = make(batch=1)
    codes.save(tmp_path / "a_reason.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_reason.pt", "a_semantic.pt"]
    for name in ("a_reason.pt", "a_semantic.pt"):
        loaded = AudioCodes.load(tmp_path / name)
        assert torch.equal(loaded.reasoning, codes.reasoning)
        assert torch.equal(loaded.reconstruction, codes.reconstruction)
        assert loaded.num_samples is None  # the published files do not tell
    stored = torch.load(tmp_path / "a_semantic.pt", weights_only=True)
    assert stored.shape == (8, 10) and stored.dtype == torch.int64
    assert (tmp_path / "a_semantic.pt").stat().st_size < 8 * 10 * 8 + 2000  # not the batch that it was a part of
    with pytest.raises(CodesError, match="hold one clip, got 2"):
        make().save(tmp_path / "b_reason.pt")
    with pytest.raises(CodesError, match="cannot be written"):
        codes.save(tmp_path / "a_reason.pt" / "b_reason.pt")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.uint8])
@pytest.mark.parametrize("batched", [False, True])
def test_published_files_of_every_integer_type(tmp_path: Path, dtype: torch.dtype, batched: bool) -> None:
    codes = make(None, largest=200, batch=1)
    for name, stream in (("reason", codes.reasoning), ("semantic", codes.reconstruction)):
        torch.save((stream if batched else stream[0]).to(dtype), tmp_path / f"x_{name}.pt")
    loaded = AudioCodes.load(tmp_path / "x_reason.pt")
    assert torch.equal(loaded.reasoning, codes.reasoning)
    assert torch.equal(loaded.reconstruction, codes.reconstruction)


def test_the_old_format_of_torch_files_is_read(tmp_path: Path) -> None:
    codes = make(None, batch=1)
    for name, stream in (("reason", codes.reasoning), ("semantic", codes.reconstruction)):
        torch.save(stream[0], tmp_path / f"x_{name}.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(AudioCodes.load(tmp_path / "x_reason.pt").reasoning, codes.reasoning)


@pytest.mark.parametrize("stream", ["reason", "semantic"])
def test_pickles_that_would_run_code_are_refused(tmp_path: Path, stream: str) -> None:
    proof, path = tmp_path / "proof", tmp_path / f"a_{stream}.pt"
    make(batch=1).save(tmp_path / "a_reason.pt")
    for write in (
        lambda value: torch.save(value, path),
        lambda value: torch.save(value, path, _use_new_zipfile_serialization=False),
        lambda value: path.write_bytes(pickle.dumps(value)),
    ):
        for value in (Evil(proof), [torch.zeros(8, 3).long(), Evil(proof)], {"codes": Evil(proof)}):
            write(value)
            with pytest.raises(CodesError, match=rf"a_{stream}\.pt: (refused|damaged)") as caught:
                AudioCodes.load(tmp_path / "a_reason.pt")
            assert "\n" not in str(caught.value)
    assert not proof.exists()


def test_bad_published_files_are_refused(tmp_path: Path) -> None:
    make(None, batch=1).save(tmp_path / "a_reason.pt")
    good = torch.load(tmp_path / "a_reason.pt", weights_only=True)

    def refuse(value: object, message: str) -> None:
        torch.save(value, tmp_path / "a_reason.pt")
        with pytest.raises(CodesError, match=message) as caught:
            AudioCodes.load(tmp_path / "a_semantic.pt")
        assert "a_reason.pt" in str(caught.value) and "\n" not in str(caught.value)

    refuse(good.float(), "must be integers, got torch.float32")
    refuse(good.bool(), "must be integers, got torch.bool")
    refuse(-good - 1, "must not be negative")
    refuse(good[None, None], r"must be \(codebooks, frames\), got \(1, 1, 8, 4\)")
    refuse(good.expand(2, 8, 4), r"must be \(codebooks, frames\), got \(2, 8, 4\)")
    refuse(good[:, :0], r"must be \(codebooks, frames\), got \(8, 0\)")
    refuse(good[:7], "has 7 codebooks and a_semantic.pt 8")
    refuse({"codes": good}, "must hold one tensor of codes, found dict")
    refuse([1, 2], "must hold one tensor of codes, found list")
    refuse(torch.zeros(1, dtype=torch.long).expand(8, 10**9), "larger than the file")
    refuse(torch.zeros(8, 4, dtype=torch.long, device="meta"), "sparse, quantised or meta")
    refuse(good.to_sparse(), "sparse, quantised or meta")
    with zipfile.ZipFile(tmp_path / "a_reason.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(CodesError, match="refused, it would unpack to 10000000 bytes"):
        AudioCodes.load(tmp_path / "a_reason.pt")
    (tmp_path / "a_reason.pt").unlink()
    with pytest.raises(CodesError, match=r"a_reason\.pt: no such file"):
        AudioCodes.load(tmp_path / "a_semantic.pt")
    with pytest.raises(CodesError, match="not a readable safetensors file.*NAME_reason.pt and NAME_semantic.pt"):
        AudioCodes.load((tmp_path / "a_semantic.pt").rename(tmp_path / "codes.pt"))


def test_equality_compares_everything() -> None:
    codes = make()
    assert codes == make()
    changed = codes.reconstruction.clone()
    changed[0, 0, 0] += 1
    assert codes != AudioCodes(codes.reasoning, changed, codes.num_samples)
    assert codes != make(None) and codes != codes[:1] and codes != "codes"
    assert AudioCodes.of({"acoustic": changed}, {"acoustic": 1920}) != AudioCodes.of(
        {"acoustic": changed}, {"acoustic": 960}
    )
    assert pickle.loads(pickle.dumps(codes)) == codes


def test_slices_of_the_batch() -> None:
    codes = make(batch=3)
    assert codes[1:] == AudioCodes(codes.reasoning[1:], codes.reconstruction[1:], codes.num_samples)
    assert codes[:0].reasoning.shape == (0, 8, 4)
    assert torch.equal(codes["reasoning"], codes.reasoning)
    with pytest.raises(CodesError, match="no stream 'acoustic'"):
        codes["acoustic"]


def test_time_is_cut_and_joined_in_units() -> None:
    codes = make(19_000)
    first, last = codes.slice_units(0, 1), codes.slice_units(1)
    assert (first.num_samples, last.num_samples) == (UNIT, 19_000 - UNIT)
    assert first.reasoning.shape[2] == 2 and first.reconstruction.shape[2] == 5
    assert AudioCodes.concatenate([first, last]) == codes
    assert AudioCodes.concatenate([make(None), make(None)]).num_samples is None
    with pytest.raises(CodesError, match="are not within the 2"):
        codes.slice_units(1, 3)
    with pytest.raises(CodesError, match="only the last part may end within a unit"):
        AudioCodes.concatenate([codes, codes])
    with pytest.raises(CodesError, match="cannot be joined"):
        AudioCodes.concatenate([first, last[:1]])


def test_other_streams_are_kept_in_files(tmp_path: Path) -> None:
    streams = (Stream("coarse", 3200, 1, 64, sample_rate=16_000), Stream("fine", 640, 4, 2048, sample_rate=16_000))
    codes = AudioCodes.of({"coarse": torch.ones(1, 1, 3).long(), "fine": torch.ones(1, 4, 15).long()}, streams, 9000)
    codes.save(tmp_path / "a.safetensors")
    loaded = AudioCodes.load(tmp_path / "a.safetensors")
    assert loaded == codes and list(loaded.streams) == ["coarse", "fine"]
    assert loaded.unit == 3200 and loaded.duration_s == 9000 / 16_000
    with pytest.raises(CodesError, match="published files hold the streams"):
        codes.save(tmp_path / "a_reason.pt")


def test_a_stream_knows_its_rates() -> None:
    stream = Stream("acoustic", 1920, 8, 512)
    assert stream.rate_hz == Fraction(25, 2) and stream.bit_rate == 900.0
    assert [stream.num_frames(n) for n in (1, 1920, 1921)] == [1, 1, 2]
    with pytest.raises(CodesError, match="hop_length"):
        Stream("acoustic", 0, 8, 512)
