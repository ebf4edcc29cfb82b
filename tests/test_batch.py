import os

import pytest

from uniaudio2.batch import (
    InputError,
    check_output_file,
    check_output_folder,
    check_readable,
    collect_inputs,
    find_files,
    plan_outputs,
)


def touch(path, data=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_folder_is_walked_in_order_and_mirrored(tmp_path):
    for name in ("b/two.wav", "a/one.flac", "a/notes.txt", "three.OPUS"):
        touch(tmp_path / "in" / name)
    items = collect_inputs([str(tmp_path / "in")], recursive=True)
    assert [item.stem.as_posix() for item in items] == ["a/one", "b/two", "three"]
    outputs = plan_outputs(items, tmp_path / "out", ".txt")
    assert outputs == [tmp_path / "out" / name for name in ("a/one.txt", "b/two.txt", "three.txt")]
    assert not (tmp_path / "out").exists()  # planning writes nothing


def test_a_folder_is_not_searched_deeper_unless_asked(tmp_path):
    for name in ("a.wav", "b.wav", "deep/c.wav", "deep/er/d.wav", ".hidden.wav", ".hidden/e.wav", "notes.txt"):
        touch(tmp_path / name)
    lines = []
    assert [item.stem.as_posix() for item in collect_inputs([str(tmp_path)], log=lines.append)] == ["a", "b"]
    deep = collect_inputs([str(tmp_path), str(tmp_path / "deep")], recursive=True, log=lines.append)
    assert [item.stem.as_posix() for item in deep] == ["a", "b", "deep/c", "deep/er/d", "c", "er/d"]
    assert lines == [f"{tmp_path}: 2 files", f"{tmp_path}: 4 files", f"{tmp_path / 'deep'}: 2 files"]
    assert [item.source for item in collect_inputs([str(tmp_path / ".hidden.wav")])]  # named, it is served


def test_links_to_folders_are_not_followed(tmp_path):
    touch(tmp_path / "in" / "deep" / "a.wav")
    touch(tmp_path / "elsewhere" / "b.wav")
    (tmp_path / "in" / "deep" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "other").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "link.wav").symlink_to(tmp_path / "elsewhere" / "b.wav")
    (tmp_path / "in" / "broken.wav").symlink_to(tmp_path / "gone")
    found = find_files(tmp_path / "in", {".wav"}, recursive=True)
    assert found == [tmp_path / "in" / "deep" / "a.wav", tmp_path / "in" / "link.wav"]
    (tmp_path / "named").symlink_to(tmp_path / "elsewhere")
    assert find_files(tmp_path / "named", {".wav"}) == [tmp_path / "named" / "b.wav"]  # a link that is named is meant


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
    with pytest.raises(InputError, match="holds no file ending in .*; --recursive searches"):
        collect_inputs([str(tmp_path)])
    with pytest.raises(InputError, match=r"holds no file ending in [^;]*$"):
        collect_inputs([str(tmp_path)], recursive=True)
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
