import os

import pytest

from uniaudio2.batch import (
    InputError,
    check_output_file,
    check_output_folder,
    check_readable,
    collect_inputs,
    plan_outputs,
)


def touch(path, data=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_folder_is_walked_in_order_and_mirrored(tmp_path):
    for name in ("b/two.wav", "a/one.flac", "a/notes.txt", "three.OPUS"):
        touch(tmp_path / "in" / name)
    items = collect_inputs([str(tmp_path / "in")])
    assert [item.stem.as_posix() for item in items] == ["a/one", "b/two", "three"]
    outputs = plan_outputs(items, tmp_path / "out", ".txt")
    assert outputs == [tmp_path / "out" / name for name in ("a/one.txt", "b/two.txt", "three.txt")]
    assert not (tmp_path / "out").exists()  # planning writes nothing


def test_dots_in_names_survive(tmp_path):
    items = collect_inputs(["v1.2.take.wav", "noending"])
    assert [str(path) for path in plan_outputs(items, tmp_path, ".txt")] == [
        str(tmp_path / "v1.2.take.txt"),
        str(tmp_path / "noending.txt"),
    ]


def test_two_inputs_for_one_output_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a/x.wav and b/x.flac would both write"):
        plan_outputs(collect_inputs(["a/x.wav", "b/x.flac"]), tmp_path, ".txt")


def test_empty_folder_and_double_stdin(tmp_path):
    with pytest.raises(InputError, match="holds no file ending in"):
        collect_inputs([str(tmp_path)])
    with pytest.raises(InputError, match="only once"):
        collect_inputs(["-", "-"])
    with pytest.raises(InputError, match="no input given"):
        collect_inputs([])


def test_unreadable_inputs_say_why(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        check_readable(str(tmp_path / "gone.wav"))
    with pytest.raises(InputError, match="is a folder"):
        check_readable(str(tmp_path))
    with pytest.raises(InputError, match="empty"):
        check_readable(str(touch(tmp_path / "empty.wav", b"")))
    check_readable(str(touch(tmp_path / "some.wav")))
    check_readable("-")


def test_outputs_are_checked_without_writing(tmp_path):
    file = touch(tmp_path / "file")
    with pytest.raises(InputError, match="is a file, an output folder"):
        check_output_folder(file)
    with pytest.raises(InputError, match="cannot be made"):
        check_output_folder(file / "below")
    with pytest.raises(InputError, match="is a folder; name a file"):
        check_output_file(str(tmp_path))
    with pytest.raises(InputError, match="not a regular file"):
        check_output_file(os.devnull)
    check_output_file(str(tmp_path / "new" / "deep" / "out.wav"))
    assert not (tmp_path / "new").exists()
