"""Data sets by name: small stand-ins in the layouts of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from uniaudio2.compare.data import clips_of
from uniaudio2.data.benchmarks import BENCHMARKS, read_benchmark
from uniaudio2.data.example import ManifestError


def audio(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(1600, np.float32), 16000)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def librispeech(root: Path) -> None:
    folder = root / "LibriSpeech" / "test-clean" / "61" / "70968"
    audio(folder / "61-70968-0000.flac", folder / "61-70968-0001.flac")
    text(folder / "61-70968.trans.txt", "61-70968-0000 HE BEGAN A CONFUSED COMPLAINT\n61-70968-0001 GIVE NOT SO\n")


def libritts(root: Path) -> None:
    folder = root / "test-clean" / "61" / "70968"
    audio(folder / "61_70968_000000_000000.wav")
    text(folder / "61_70968_000000_000000.normalized.txt", "He began.\n")


def vctk(root: Path) -> None:
    audio(root / "wav48_silence_trimmed" / "p225" / "p225_001_mic1.flac", root / "wav48" / "p226" / "p226_002.wav")
    text(root / "txt" / "p225" / "p225_001.txt", "Please call Stella.\n")
    text(root / "txt" / "p226" / "p226_002.txt", "Ask her.\n")
    text(root / "txt" / "p226" / "p226_003.txt", "There is no audio.\n")


def seed_tts_eval(root: Path) -> None:
    audio(
        root / "seedtts_testset" / "en" / "prompt-wavs" / "p1.wav", root / "seedtts_testset" / "en" / "wavs" / "u1.wav"
    )
    text(root / "seedtts_testset" / "en" / "meta.lst", "u1|The prompt.|prompt-wavs/p1.wav|What to say.\n")


def aishell(root: Path) -> None:
    audio(root / "data_aishell" / "wav" / "test" / "S0764" / "BAC009S0764W0121.wav")
    text(root / "data_aishell" / "transcript" / "aishell_transcript_v0.8.txt", "BAC009S0764W0121 甚至 出现 交易\n")


def common_voice(root: Path, language: str = "en", sentence: str = 'He said "no.') -> None:
    audio(root / "cv" / language / "clips" / "cv_1.wav")
    text(root / "cv" / language / "test.tsv", f"client_id\tpath\tsentence\nabc\tcv_1.wav\t{sentence}\n")


def musiccaps(root: Path) -> None:
    audio(root / "audio" / "[-0SdAVK79lg]-[30-40].wav", root / "audio" / "abc.wav")
    head = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,"
    head += "is_audioset_eval\n"
    rows = (
        "-0SdAVK79lg,30,40,/m/1,\"['a', 'b']\",\"A song, slow.\",1,False,True\nabc,0,10,/m/1,[],Other,1,False,False\n"
    )
    text(root / "musiccaps-public.csv", head + rows)


def audiocaps(root: Path) -> None:
    audio(root / "test" / "rqfQRErjfk8.wav")
    text(
        root / "test.csv",
        "audiocap_id,youtube_id,start_time,caption\n1,rqfQRErjfk8,170,A crowd\n2,rqfQRErjfk8,170,People\n3,gone,0,x\n",
    )


def clotho(root: Path) -> None:
    audio(root / "evaluation" / "Rain.wav")
    text(
        root / "clotho_captions_evaluation.csv",
        "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\nRain.wav,a,b,c,d,e\n",
    )


def esc50(root: Path) -> None:
    audio(root / "ESC-50" / "audio" / "1-100032-A-0.wav", root / "ESC-50" / "audio" / "2-1-A-1.wav")
    rows = "1-100032-A-0.wav,1,0,dog,True,100032,A\n2-1-A-1.wav,2,1,rooster,True,1,A\n"
    text(root / "ESC-50" / "meta" / "esc50.csv", "filename,fold,target,category,esc10,src_file,take\n" + rows)


def torgo(root: Path) -> None:
    for name, prompt in (("0001", "stick"), ("0002", "[say Ah-P-Eee repeatedly]"), ("0003", "input/images/tooth.jpg")):
        audio(root / "F01" / "Session1" / "wav_headMic" / f"{name}.wav")
        text(root / "F01" / "Session1" / "prompts" / f"{name}.txt", f"{prompt}\n")
    audio(root / "FC01" / "Session1" / "wav_arrayMic" / "0001.wav")
    text(root / "FC01" / "Session1" / "prompts" / "0001.txt", "stick\n")


def uaspeech(root: Path) -> None:
    audio(
        root / "audio" / "noisereduce" / "F02" / "F02_B2_C12_M8.wav",
        root / "audio" / "noisereduce" / "F02" / "F02_B1_D1_M8.wav",
    )
    text(
        root / "mlf" / "F02" / "F02_word.mlf", '#!MLF!#\n"*/F02_B2_C12_M8.lab"\nDOWN\n.\n"*/F02_B1_D1_M8.lab"\nONE\n.\n'
    )


def mmau(root: Path) -> None:
    audio(root / "test-mini-audios" / "a1.wav")
    row = {
        "id": "a1",
        "audio_id": "./test-mini-audios/a1.wav",
        "question": "What is it?",
        "choices": ["rain", "wind"],
        "answer": "rain",
        "task": "sound",
    }
    text(root / "mmau-test-mini.json", json.dumps([row]))


def dns(root: Path) -> None:
    top = root / "datasets" / "test_set" / "synthetic" / "no_reverb"
    audio(top / "noisy" / "clnsp1_train_69005_1_snr15_fileid_158.wav", top / "clean" / "clean_fileid_158.wav")


def librimix(root: Path) -> None:
    top = root / "Libri2Mix" / "wav16k" / "min" / "test"
    audio(*(top / place / "1089_1320.wav" for place in ("mix_clean", "s1", "s2")))


def ami(root: Path) -> None:
    audio(
        root / "amicorpus" / "ES2004a" / "audio" / "ES2004a.Mix-Headset.wav",
        root / "amicorpus" / "ES2002a" / "audio" / "ES2002a.Mix-Headset.wav",
    )
    for speaker, start in (("A", 0.01), ("B", 0.05)):
        words = "".join(
            f'<w nite:id="w{n}" starttime="{start + n}" endtime="{start + n + 0.02}">hm{n}</w>' for n in (0, 2)
        )
        words += '<w nite:id="p" starttime="9" endtime="9" punc="true">.</w>'
        text(root / "words" / f"ES2004a.{speaker}.words.xml",
             f'<nite:root nite:id="x" xmlns:nite="http://nite.sourceforge.net/">{words}</nite:root>')  # fmt: skip


ROWS = [
    (librispeech, "librispeech", None, 2, {"text": "he began a confused complaint", "speaker": "61", "split": "test"}),
    (libritts, "libritts", "test-clean", 1, {"text": "He began.", "speaker": "61"}),
    (vctk, "vctk", None, 2, {"id": "p225_001", "text": "Please call Stella.", "speaker": "p225"}),
    (seed_tts_eval, "seed_tts_eval", "en", 1,
     {"id": "u1", "text": "What to say.", "texts": {"prompt_text": "The prompt."}}),
    (aishell, "aishell", None, 1, {"text": "甚至出现交易", "speaker": "S0764", "language": "zh"}),
    (common_voice, "common_voice_en", None, 1, {"text": 'He said "no.', "speaker": "abc", "language": "en"}),
    (musiccaps, "musiccaps", None, 1, {"caption": "A song, slow.", "kind": "music"}),
    (audiocaps, "audiocaps", "test", 1, {"captions": ("A crowd", "People"), "kind": "sound"}),
    (clotho, "clotho", None, 1, {"captions": ("a", "b", "c", "d", "e")}),
    (esc50, "esc50", "fold2", 1, {"label": "rooster", "kind": "sound"}),
    (torgo, "torgo", None, 1, {"text": "stick", "speaker": "F01"}),
    (torgo, "torgo", "control", 1, {"speaker": "FC01"}),
    (uaspeech, "uaspeech", None, 1, {"text": "down", "speaker": "F02", "split": "test"}),
    (mmau, "mmau", None, 1, {"id": "a1", "texts": {"question": "What is it?\n(A) rain\n(B) wind", "answer": "rain"}}),
    (dns, "dns", None, 1, {"id": "clnsp1_train_69005_1_snr15_fileid_158"}),
    (librimix, "librimix", None, 1, {"id": "1089_1320", "split": "test"}),
    (ami, "ami", None, 1, {"id": "ES2004a", "split": "test"}),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name", "split", "count", "fields"), ROWS)
def test_a_folder_of_the_real_layout_is_read(make, name, split, count, fields, tmp_path):
    make(tmp_path)
    found = read_benchmark(name, tmp_path, split)
    assert len(found) == count
    assert {key: getattr(found[0], key) for key in fields} == fields
    assert found[0].audio().shape == (1, 2400)
    assert len(clips_of(f"{name}={tmp_path}", split=split)) == count
    with pytest.raises(ManifestError, match="has no split 'none'; it has"):
        read_benchmark(name, tmp_path, "none")


def test_several_audios_and_turns(tmp_path):
    dns(tmp_path / "dns")
    assert set(read_benchmark("dns", tmp_path / "dns")[0].recordings) == {"noisy", "clean"}
    librimix(tmp_path / "mix")
    assert list(read_benchmark("librimix", tmp_path / "mix")[0].recordings) == ["mixture", "s1", "s2"]
    seed_tts_eval(tmp_path / "seed")
    assert list(read_benchmark("seed_tts_eval", tmp_path / "seed")[0].recordings) == ["audio", "prompt"]
    ami(tmp_path / "ami")
    turns = read_benchmark("ami", tmp_path / "ami")[0].turns
    assert [(turn.speaker, turn.text) for turn in turns] == [
        ("ES2004a-A", "hm0"), ("ES2004a-B", "hm0"), ("ES2004a-A", "hm2"), ("ES2004a-B", "hm2"),
    ]  # fmt: skip


@pytest.mark.parametrize("language", ["zh", "hk", "yue"])
def test_common_voice_in_other_languages(language, tmp_path):
    folder = {"zh": "zh-CN", "hk": "zh-HK", "yue": "yue"}[language]
    common_voice(tmp_path, folder, "你好")
    found = read_benchmark(f"common_voice_{language}", tmp_path / "cv")
    assert (found[0].text, found[0].language) == ("你好", "yue" if language == "hk" else language)


def test_every_row_says_what_is_needed():
    for name, own in BENCHMARKS.items():
        assert own.title and own.licence and own.where and own.splits and own.metric, name


def test_what_is_not_there(tmp_path):
    with pytest.raises(ManifestError, match="no data set 'nosuch' is known; there are librispeech"):
        read_benchmark("nosuch", tmp_path)
    with pytest.raises(ManifestError, match=r"no such folder; LibriSpeech is had from openslr\.org/12"):
        read_benchmark("librispeech", tmp_path / "none")
    with pytest.raises(ManifestError, match="not the folder of this data set, test-clean is missing"):
        read_benchmark("librispeech", tmp_path)
    with pytest.raises(ManifestError, match="SECap: there is no reader of its layout; write a manifest"):
        read_benchmark("secap", tmp_path)
    (tmp_path / "test-clean").mkdir()
    with pytest.raises(ManifestError, match="no clips of LibriSpeech, split test-clean"):
        read_benchmark("librispeech", tmp_path)


def test_a_manifest_in_the_folder_is_read_instead(tmp_path):
    audio(tmp_path / "a.wav")
    text(tmp_path / "manifest.jsonl", json.dumps({"id": "a", "path": "a.wav", "duration": 0.1, "split": "test"}))
    assert read_benchmark("secap", tmp_path)[0].id == "a"
