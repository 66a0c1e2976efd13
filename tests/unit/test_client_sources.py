"""Which images the PATHs of the command line stand for."""

from pathlib import Path

import click
import pytest

from client.cli.sources import expand


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a.jpg", "b.PNG", "notes.txt", ".hidden.jpg", "sub/c.webp", ".git/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"cat")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str) -> list[str]:
    return [source.name for source in expand(arguments)]


def problem(argument: str) -> str:
    (source,) = expand([argument])
    assert source.problem is not None
    return source.problem.message


def test_a_folder_stands_for_its_images_at_any_depth() -> None:
    assert names(".") == ["a.jpg", "b.PNG", "sub/c.webp"]


def test_a_named_file_is_taken_whatever_it_is_called() -> None:
    assert names("notes.txt", "missing.jpg") == ["notes.txt", "missing.jpg"]


def test_patterns_may_be_quoted() -> None:
    assert names("*.jpg") == ["a.jpg"]
    assert names("**/*.webp") == ["sub/c.webp"]
    assert names("su?") == ["sub/c.webp"]


def test_a_pattern_takes_no_image_twice(folder: Path) -> None:
    for pattern in ("**", "**/", "**/**"):
        assert names(pattern) == ["a.jpg", "b.PNG", "sub/c.webp"]
    # A folder that matches stands for its images, as it does when it is named.
    (folder / "sub/notes.txt").write_bytes(b"cat")
    assert names("**/*") == ["a.jpg", "b.PNG", "notes.txt", "sub/c.webp"]
    assert names("s*/**") == names("sub/**") == names("**/sub") == ["sub/c.webp"]
    assert names(f"{folder}/**/*.webp") == [f"{folder}/sub/c.webp"]


def test_a_pattern_enters_what_is_deep_and_not_hidden(folder: Path) -> None:
    (folder / "sub/[x]/deep").mkdir(parents=True)
    (folder / "sub/[x]/deep/e.jpg").write_bytes(b"cat")
    assert names("**/*.jpg") == ["a.jpg", "sub/[x]/deep/e.jpg"]
    assert names("**/deep/**/*.jpg") == ["sub/[x]/deep/e.jpg"]


def test_links_to_folders_are_not_entered(folder: Path) -> None:
    for name in ("here", "there"):
        (folder / "sub" / name).symlink_to(folder)
    assert names(".") == names("**") == ["a.jpg", "b.PNG", "sub/c.webp"]
    assert names("**/*.webp") == ["sub/c.webp"]
    # One that is named is.
    assert names("sub/here") == ["sub/here/a.jpg", "sub/here/b.PNG", "sub/here/sub/c.webp"]
    (folder / "album").mkdir()
    (folder / "album/2024").symlink_to(folder / "sub")
    assert problem("album") == (
        "no images in this folder; links to folders are not followed: album/2024"
    )


def test_a_file_whose_name_looks_like_a_pattern_is_meant(folder: Path) -> None:
    (folder / "[a].jpg").write_bytes(b"cat")
    assert names("[a].jpg") == ["[a].jpg"]


def test_file_urls_are_decoded(folder: Path) -> None:
    (folder / "two words.jpg").write_bytes(b"cat")
    expected = [str(folder / "two words.jpg")]
    assert names(f"file://{folder}/two%20words.jpg") == expected
    assert names(f"file://localhost{folder}/two%20words.jpg") == expected
    assert names(f"file:{folder}/two%20words.jpg") == expected


def test_what_stands_for_nothing_says_why(folder: Path) -> None:
    (folder / "empty").mkdir()
    assert problem("*.gif") == "no file matches this pattern"
    assert problem("empty") == "no images in this folder"
    assert "download" in problem("https://example.org/cat.jpg")
    assert "another host" in problem("file://elsewhere/cat.jpg")
    assert "Invalid" in problem("file://[half/cat.jpg")


def test_standard_input_can_be_read_once() -> None:
    assert names("-", "a.jpg") == ["-", "a.jpg"]
    with pytest.raises(click.UsageError):
        expand(["-", "-"])
