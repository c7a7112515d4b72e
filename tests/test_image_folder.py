from __future__ import annotations

import io
import os
import shutil
import struct
import tarfile
import unicodedata
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from examples import tries
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ann_snn_utils.data import archive, image_file
from ann_snn_utils.data import folder as image_folder
from ann_snn_utils.data.archive import unpack
from ann_snn_utils.data.dataset import load_dataset
from ann_snn_utils.data.image_file import read_pixels

GREY = np.arange(0, 240, 5, dtype=np.uint8).reshape(6, 8)
COLOUR = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ANN_SNN_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path) -> Path:
    """Images a, b (cat) and c (dog) to train with, d (cat) and e (dog) to test with; their greys differ."""
    root = tmp_path / "pets"
    for value, name in enumerate(
        ["train/cat/a.png", "train/cat/b.png", "train/dog/c.png", "test/cat/d.png", "test/dog/e.png"]
    ):
        save(root / name, GREY + value)
    return root


def save(path: Path, pixels: np.ndarray | Image.Image, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)
    return path


def refuse(folder: Path, *parts: str, error: type[Exception] = ValueError) -> None:
    """Loading fails, the message holds every part, and nothing is left in the cache."""
    with pytest.raises(error) as raised:
        load_dataset(folder)
    for part in parts:
        assert part in str(raised.value)
    cache = Path(os.environ["ANN_SNN_CACHE"])
    assert not cache.exists() or os.listdir(cache) == []


def test_images_labels_and_classes_come_from_the_folders(folder):
    train, test = load_dataset(folder, "train"), load_dataset(str(folder))
    assert (train.name, train.classes) == ("pets", ("cat", "dog"))
    assert train.labels.tolist() == [0, 0, 1] and test.labels.tolist() == [0, 1]
    assert train.in_shape == (1, 6, 8)
    expected = [GREY, GREY + 1, GREY + 2]
    assert torch.equal(train.images[:, 0], torch.from_numpy(np.stack(expected)))
    assert torch.equal(test.images[1, 0], torch.from_numpy(GREY + 4))


def test_a_relative_path_is_looked_up_in_the_working_directory(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert load_dataset("pets").name == "pets"
    monkeypatch.chdir(folder)
    assert load_dataset(".").name == "pets"


def test_one_colour_image_in_either_split_makes_all_images_rgb(folder):
    save(folder / "test/dog/f.png", COLOUR)
    train, test = load_dataset(folder, "train"), load_dataset(folder, "test")
    assert train.in_shape == test.in_shape == (3, 6, 8)
    assert torch.equal(train.images[0], torch.from_numpy(GREY).expand(3, 6, 8))
    assert torch.equal(test.images[2], torch.from_numpy(COLOUR).permute(2, 0, 1))


def test_images_take_the_size_of_the_first_training_image_or_the_requested_one(folder):
    large = Image.fromarray(np.kron(GREY, np.ones((4, 4), dtype=np.uint8)))
    save(folder / "test/cat/d.png", large)
    expected = np.asarray(large.resize((8, 6), Image.Resampling.BILINEAR))
    test = load_dataset(folder)
    assert test.in_shape == (1, 6, 8)
    assert torch.equal(test.images[0, 0], torch.tensor(expected))
    assert load_dataset(folder, size=5).in_shape == (1, 5, 5)
    assert load_dataset(folder, size=(3, 7)).in_shape == (1, 3, 7)


def test_a_camera_turn_is_undone(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folder / "train/cat/a.png", np.rot90(GREY), exif=exif)
    train = load_dataset(folder, "train")
    assert train.in_shape == (1, 6, 8)
    assert torch.equal(train.images[0, 0], torch.from_numpy(GREY))


def test_decimal_class_names_are_in_order_of_their_value(tmp_path):
    for split in ("train", "test"):
        for name in ("10", "9", "2"):
            save(tmp_path / "n" / split / name / "a.png", GREY)
    assert load_dataset(tmp_path / "n").classes == ("2", "9", "10")


def test_a_folder_called_like_a_named_data_set_is_called_otherwise(folder):
    for name in ("mnist", "Fashion-MNIST", "CIFAR10"):
        folder = folder.rename(folder.with_name(name))
        assert load_dataset(folder).name == f"folder {name}"


def test_hidden_files_and_files_beside_the_classes_are_ignored(folder):
    (folder / "README").write_text("x")
    (folder / "train" / "labels.csv").write_text("x")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "cat" / ".DS_Store").write_text("x")
    (folder / "train" / "cat" / "._a.png").write_text("Mac OS X")
    (folder / "train" / "__MACOSX").mkdir()
    (folder / "train" / "cat" / "Thumbs.db").write_text("x")
    assert len(load_dataset(folder, "train")) == 3


def pixels_of(path: Path, channels: int = 1) -> list[int]:
    return read_pixels(path, channels, 1, 3).reshape(channels, 3).T.squeeze().tolist()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, name):
    path = save(tmp_path / name, np.array([[0, 32896, 65535]], dtype=np.uint16))
    assert pixels_of(path) == [0, 128, 255]


def test_more_than_16_bits_are_refused(folder):
    save(folder / "train/cat/a.tif", np.array([[0, 1, 70000]], dtype=np.int32))
    refuse(folder, "train/cat/a.tif", "16 bits")
    (folder / "train/cat/a.tif").unlink()
    save(folder / "train/cat/b.tif", np.array([[0, 1, 0.5]], dtype=np.float32))
    refuse(folder, "train/cat/b.tif", "mode 'F'")


def test_16_bit_values_that_8_bits_do_not_tell_apart_are_refused(folder):
    save(folder / "train/cat/a.png", np.array([[0, 20], [20, 5]], dtype=np.uint16))
    refuse(folder, "train/cat/a.png", "16-bit values 0…20 all become 0 in 8 bits", "scale them to 0…65535")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_images_of_a_camera_of_12_bits_are_refused_and_those_of_full_range_are_not(tmp_path, suffix):
    for scale in (1, 16):
        for index, (split, name) in enumerate((s, n) for s in ("train", "test") for n in ("a", "b")):
            values = (np.arange(16, dtype=np.uint16).reshape(4, 4) * 272 + index) * scale
            save(tmp_path / str(scale) / split / name / f"x.{suffix}", values)
    assert int(load_dataset(tmp_path / "16").images.max()) > 200
    with pytest.raises(ValueError, match=r"16-bit images of .*/a/x\..* use less than an eighth of their range"):
        load_dataset(tmp_path / "1")


def test_one_dim_16_bit_image_beside_bright_ones_is_taken_as_dark_and_told(tmp_path):
    for index, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        save(tmp_path / place / "x.png", (np.arange(4, dtype=np.uint16).reshape(2, 2) + index) * 9000)
    load_dataset(tmp_path)
    save(tmp_path / "train/b/dim.png", np.arange(4, dtype=np.uint16).reshape(2, 2) * 2000)
    with pytest.warns(UserWarning, match="train/b/dim.png uses less than an eighth of its 16 bits.*taken as dark"):
        assert len(load_dataset(tmp_path, "train")) == 3


def chunk(kind: bytes, content: bytes) -> bytes:
    sum32 = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", sum32)


def png_of_16_bits(path: Path, values: np.ndarray, *extra: bytes) -> Path:
    """Write values uint16 [H, W, C] as grey, grey with alpha, RGB or RGBA; Pillow writes none but the first."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [header, *extra, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize(("channels", "colour"), [(1, False), (2, False), (3, True), (4, True)])
def test_16_bit_channels_are_seen_whatever_their_number(tmp_path, channels, colour):
    values = np.full((1, 3, channels), 65535, dtype=np.uint16)
    values[0, :, 0] = [0, 32896, 65535]
    path = png_of_16_bits(tmp_path / "a.png", values)
    assert image_file.in_colour(path) == colour and image_file.has_16_bits(path)
    assert read_pixels(path, 3, 1, 3)[0].tolist() == [[0, 128, 255]]


def test_16_bit_colours_of_small_values_are_refused(tmp_path):
    for index, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        png_of_16_bits(tmp_path / "rgb" / name / "x.png", np.full((2, 2, 3), 1000 * index, np.uint16))
    refuse(tmp_path / "rgb", "use less than an eighth of their range", "save them with 8 bits")


def test_16_bits_with_one_transparent_value_or_with_white_as_zero_are_refused(folder):
    values = np.full((2, 2, 1), 40000, np.uint16)
    path = png_of_16_bits(folder / "train/cat/t.png", values, chunk(b"tRNS", b"\0\0"))
    refuse(folder, "t.png", "one transparent value", "save it with 8 bits")
    path.unlink()
    save(folder / "train/cat/w.tif", values[..., 0], tiffinfo={262: 0})
    refuse(folder, "w.tif", "0 is white", "save it as PNG")


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp"])
def test_a_file_of_several_frames_is_refused_and_one_of_a_single_frame_is_not(folder, suffix):
    first, second = (Image.fromarray(pixels) for pixels in (GREY, 255 - GREY))
    save(folder / f"train/cat/f.{suffix}", first, save_all=True)
    assert len(load_dataset(folder, "train")) == 4
    shutil.rmtree(os.environ["ANN_SNN_CACHE"])
    save(folder / f"train/cat/f.{suffix}", first, save_all=True, append_images=[second])
    refuse(folder, f"train/cat/f.{suffix}", "2 frames", "save each one as a file of its own")


def test_the_preview_beside_a_cameras_jpeg_is_no_second_frame(folder):
    picture = Image.fromarray(COLOUR)
    save(folder / "train/cat/m.jpg", picture, format="MPO", save_all=True, append_images=[picture])
    assert len(load_dataset(folder, "train")) == 4


@pytest.mark.parametrize("suffix", ["png", "gif", "tif", "bmp"])
def test_a_grey_picture_with_a_palette_is_grey_and_one_with_colours_is_not(tmp_path, suffix):
    image = Image.fromarray(GREY).convert("P")
    image.putpalette([v for grey in range(255) for v in (grey,) * 3] + [255, 0, 0])
    path = save(tmp_path / f"a.{suffix}", image)
    assert not image_file.in_colour(path)
    assert np.array_equal(read_pixels(path, 1, 6, 8)[0], GREY)
    image.putpixel((0, 0), 255)
    path = save(tmp_path / f"b.{suffix}", image)
    assert image_file.in_colour(path) and read_pixels(path, 3, 6, 8)[:, 0, 0].tolist() == [255, 0, 0]


def test_a_transparent_palette_entry_lies_on_white(tmp_path):
    image = Image.fromarray(GREY).convert("P")
    image.putpalette([v for grey in range(256) for v in (grey,) * 3])
    path = save(tmp_path / "a.png", image, transparency=0)
    assert not image_file.in_colour(path)
    assert read_pixels(path, 1, 6, 8)[0, 0, :3].tolist() == [255, 5, 10]


def test_images_that_all_have_one_value_are_refused(folder):
    for path in folder.rglob("*.png"):
        save(path, Image.new("RGBA", (8, 6), (255, 255, 255, path.stem.encode()[0])))
    refuse(folder, "all 5 images", "decode to the one value 255", "without transparency")


def test_cmyk_becomes_rgb(tmp_path):
    path = save(tmp_path / "a.tif", Image.new("CMYK", (3, 1), (255, 0, 0, 0)))
    assert image_file.in_colour(path)
    assert pixels_of(path, 3) == [[0, 255, 255]] * 3


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("1", 1, [255]),
        ("LA", (70, 255), [70]),
        ("LA", (70, 0), [255]),
        ("RGBA", (10, 20, 30, 255), [10, 20, 30]),
        ("RGBA", (0, 255, 100, 51), [204, 255, 224]),
        ("P", 0, [0]),
    ],
)
def test_other_modes_become_grey_or_rgb(tmp_path, mode, colour, expected):
    path = save(tmp_path / "a.png", Image.new(mode, (3, 1), colour))
    assert image_file.in_colour(path) == (len(expected) == 3)
    assert read_pixels(path, len(expected), 1, 3)[:, 0, 0].tolist() == expected


def test_a_path_that_is_missing_or_lacks_a_split_is_named(folder):
    shutil.rmtree(folder / "test")
    refuse(folder, str(folder), "has no test/ folder", error=FileNotFoundError)
    (folder / "train").rename(folder / "training")
    refuse(folder, "has no train/ folder", error=FileNotFoundError)


def test_a_folder_without_classes_or_with_one_only_is_refused(folder):
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "dog")
    refuse(folder, "one class only, 'cat'", "at least two")
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "cat")
    refuse(folder, "train has no class folders")


def test_classes_that_differ_between_the_splits_are_named(folder):
    (folder / "train/dog").rename(folder / "train/hund")
    refuse(folder, "only in train/: hund", "only in test/: dog")


def class_folder(folder: Path, split: str, name: bytes) -> Path:
    place = Path(os.fsdecode(os.path.join(os.fsencode(folder / split), name)))
    try:
        save(place / "0.png", GREY + len(name))
    except OSError as error:
        pytest.skip(f"this file system takes no such name: {error}")
    return place


def test_a_class_in_two_forms_of_unicode_or_in_latin_1_is_one_class(folder):
    class_folder(folder, "train", unicodedata.normalize("NFC", "Gänse").encode())
    other = class_folder(folder, "test", unicodedata.normalize("NFD", "Gänse").encode())
    names = ("Gänse", "cat", "dog")
    assert load_dataset(folder).classes == names
    shutil.rmtree(other)
    other = class_folder(folder, "test", "Gänse".encode("latin-1"))
    assert load_dataset(folder).classes == names
    (other / "0.png").write_bytes(b"x")
    refuse_text = f"{folder}/test/Gänse/0.png is not an image"
    with pytest.raises(ValueError, match=refuse_text) as raised:
        load_dataset(folder)
    str(raised.value).encode()


def test_two_folders_of_one_class_are_refused_with_their_spellings(folder):
    for form in ("NFC", "NFD"):
        class_folder(folder, "train", unicodedata.normalize(form, "Gänse").encode())
    refuse(folder, "two folders for class 'Gänse'", r"'Ga\u0308nse' and 'G\xe4nse'", "move the images")


def test_a_path_that_no_file_of_results_can_hold_is_refused(folder, tmp_path):
    class_folder(tmp_path, "x", "Gänse".encode("latin-1"))
    place = folder.rename(os.fsdecode(os.fsencode(tmp_path) + b"/x/G\xe4nse/pets"))
    refuse(place, "x/Gänse/pets", "its path is not UTF-8, rename it")


def test_an_empty_class_folder_is_named(folder):
    (folder / "test/dog/e.png").unlink()
    refuse(folder, "test/dog is empty")


def test_a_folder_inside_a_class_folder_is_named(folder):
    (folder / "train/cat/more").mkdir()
    refuse(folder, "train/cat/more is not a file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_among_the_images_is_named_instead_of_waited_for(folder):
    os.mkfifo(folder / "train/cat/pipe.png")
    refuse(folder, "pipe.png is not a file")


def test_bad_files_are_named_together_the_first_of_them_in_words(folder):
    (folder / "train/cat/a.png").write_bytes((folder / "train/cat/b.png").read_bytes()[:-30])
    for name in "dog/e.png", "cat/x.txt":
        (folder / "test" / name).write_text("no image")
    refuse(folder, "a.png cannot be read", "; ", "e.png is not an image", "x.txt is not an image")
    for number in range(4):
        (folder / f"test/dog/{number}.png").touch()
    for name in "train/dog/folder", "train/cat/folder":
        (folder / name).mkdir()
    refuse(
        folder, "train/cat/folder is not a file", "train/dog/folder", "dog/2.png is empty (0 bytes)", "; and 4 more"
    )


def test_a_file_of_0_bytes_is_named(folder):
    (folder / "train/dog/c.png").write_bytes(b"")
    refuse(folder, "train/dog/c.png is empty (0 bytes)")


@pytest.mark.parametrize("content", [b"hello", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", bytes(500)])
def test_a_file_that_is_no_image_is_named(folder, content):
    (folder / "test/dog/notes.png").write_bytes(content)
    refuse(folder, "test/dog/notes.png is not an image")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "ppm"])
def test_a_truncated_image_is_named(folder, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    path = save(folder / f"test/dog/x.{suffix}", noise)
    whole = path.read_bytes()
    for share in (0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        refuse(folder, f"test/dog/x.{suffix} cannot be read", "replace or delete")


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(folder, monkeypatch):
    save(folder / "train/cat/bomb.png", Image.new("1", (20000, 20000)))
    flat, decoded = image_file._flat, []
    monkeypatch.setattr(image_file, "_flat", lambda image: decoded.append(image.size) or flat(image))
    refuse(folder, "train/cat/bomb.png", "cannot be read", "pixels")
    assert set(decoded) <= {(8, 6)}


def test_images_that_would_not_fit_into_memory_are_refused(folder, monkeypatch):
    monkeypatch.setattr(image_folder, "_MAX_BYTES", 5 * 48 - 1)
    refuse(folder, "5 images of 1×6×8", "smaller size")


@pytest.fixture
def link(folder):
    def make(name: str, target: Path | str) -> None:
        try:
            (folder / name).symlink_to(target)
        except OSError as error:
            pytest.skip(f"this system makes no links: {error}")

    return make


def test_links_that_lead_out_of_the_folder_are_refused(folder, tmp_path, link):
    save(tmp_path / "elsewhere/secret.png", GREY)
    link("train/cat/secret.png", tmp_path / "elsewhere/secret.png")
    refuse(folder, "train/cat/secret.png is a link out of the image folder")
    (folder / "train/cat/secret.png").unlink()
    link("train/cow", tmp_path / "elsewhere")
    refuse(folder, "train/cow is a link out of the image folder")
    (folder / "train/cow").unlink()
    (folder / "train").rename(tmp_path / "train")
    link("train", tmp_path / "train")
    refuse(folder, "train is a link out of the image folder")


def test_links_empty_and_damaged_files_are_named_together(folder, tmp_path, link):
    save(tmp_path / "secret.png", GREY)
    link("train/cat/out.png", tmp_path / "secret.png")
    link("train/cow", tmp_path)
    link("test/dog/gone.png", "nothing.png")
    (folder / "train/cat/a.png").write_text("no image")
    (folder / "test/dog/e.png").write_bytes(b"")
    bad = "train/cow is a link out", "out.png is a link out", "gone.png is a link that leads nowhere"
    refuse(folder, *bad, "e.png is empty", "a.png is not an image")


def test_links_that_take_the_place_of_class_folders_are_named_instead_of_missing_classes(folder, tmp_path, link):
    for name in "train/dog", "test/cat":
        (folder / name).rename(tmp_path / name.replace("/", "-"))
        link(name, tmp_path / name.replace("/", "-"))
    refuse(folder, "train/dog is a link out of the image folder", "test/cat is a link out of the image folder")


def test_links_that_lead_nowhere_or_in_circles_are_refused(folder, link):
    link("train/cat/gone.png", "nothing.png")
    refuse(folder, "gone.png is a link that leads nowhere")
    (folder / "train/cat/gone.png").unlink()
    link("train/cat/self.png", "self.png")
    refuse(folder, "self.png is a link that leads nowhere")


def test_links_inside_the_folder_and_to_the_folder_are_followed(folder, tmp_path, link):
    link("train/dog/again.png", "../cat/a.png")
    (tmp_path / "alias").symlink_to(folder)
    assert len(load_dataset(tmp_path / "alias", "train")) == 4


def forbid_decoding(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("decoded although the cache holds it")

    monkeypatch.setattr(image_folder, "read_pixels", refuse)


def test_images_are_decoded_once_for_both_splits(folder, monkeypatch):
    first = load_dataset(folder, "test")
    forbid_decoding(monkeypatch)
    second = load_dataset(folder, "test")
    assert torch.equal(first.images, second.images)
    assert len(load_dataset(folder, "train")) == 3


def test_images_that_were_moved_are_not_decoded_again(folder, monkeypatch):
    before = load_dataset(folder)
    forbid_decoding(monkeypatch)
    assert load_dataset(folder.rename(folder.with_name("moved"))).sha256 == before.sha256


def test_files_swapped_with_equal_sizes_and_times_are_read_anew(folder):
    first, second = (save(folder / f"train/{name}/x.bmp", GREY + v) for name, v in (("cat", 9), ("dog", 11)))
    for path in (first, second):
        os.utime(path, (1_600_000_000, 1_600_000_000))
    before = load_dataset(folder, "train").images
    aside = first.rename(folder / "aside")
    second.rename(first)
    aside.rename(second)
    assert (load_dataset(folder, "train").images.int() - before.int()).amax((1, 2, 3)).tolist() == [0, 0, 2, 0, -2]


def test_a_changed_image_and_another_size_are_decoded_anew(folder):
    load_dataset(folder)
    path = save(folder / "test/cat/d.png", 255 - GREY)
    os.utime(path, ns=(1, 1))
    assert torch.equal(load_dataset(folder).images[0, 0], torch.from_numpy(255 - GREY))
    assert load_dataset(folder, size=4).in_shape == (1, 4, 4)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-10], lambda data: b"x" * 100])
def test_a_damaged_cache_is_made_again(folder, cache, monkeypatch, damage):
    expected = load_dataset(folder).images
    for file in cache.iterdir():
        file.write_bytes(damage(file.read_bytes()))
    assert torch.equal(load_dataset(folder).images, expected)
    forbid_decoding(monkeypatch)
    assert torch.equal(load_dataset(folder).images, expected)


def test_without_a_writable_cache_the_images_are_still_read_with_a_warning(folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("ANN_SNN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="set ANN_SNN_CACHE to a writable folder"):
        assert len(load_dataset(folder)) == 2


def test_reading_writes_nothing_into_the_image_folder(folder):
    before = sorted(folder.rglob("*"))
    load_dataset(folder)
    assert sorted(folder.rglob("*")) == before


SAMPLES = {}
for _format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
    _buffer = io.BytesIO()
    Image.fromarray(COLOUR).save(_buffer, _format)
    SAMPLES[_format] = _buffer.getvalue()


@tries(300)
@given(st.sampled_from(sorted(SAMPLES)), st.integers(0, 10**6), st.binary(max_size=4), st.booleans())
def test_damaged_images_give_pixels_or_an_error_with_their_path(tmp_path, form, position, patch, cut):
    data = SAMPLES[form]
    position %= len(data)
    path = tmp_path / "damaged"
    path.write_bytes(data[:position] + patch + (b"" if cut else data[position + len(patch) :]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            assert read_pixels(path, 3, 6, 8).shape == (3, 6, 8)
        except ValueError as error:
            assert str(path) in str(error)


def make_archive(path: Path, folder: Path, top: str = "pets", extra: tuple = ()) -> Path:
    with tarfile.open(path, "w:xz") as archive:
        archive.add(folder, top)
        for member in extra:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def test_the_cache_may_be_named_by_a_path_that_goes_up(folder, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("ANN_SNN_CACHE", "../cache")
    assert len(load_dataset(make_archive(tmp_path / "mine.tar.xz", folder), "train")) == 3


@pytest.mark.parametrize("top", ["pets", "."])
def test_any_archive_of_an_image_folder_can_be_named(folder, tmp_path, top):
    assert len(load_dataset(make_archive(tmp_path / "mine.tar.xz", folder, top), "train")) == 3


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (member("../../escaped", 1), "outside the destination"),
        (member("pets/train/cat/link.png", kind=tarfile.SYMTYPE, target="/etc/hostname"), "is a link"),
        (member("pets/train/cat/link.png", kind=tarfile.LNKTYPE, target="pets/test/cat/d.png"), "is a link"),
        (member("pets/train/cat/pipe", kind=tarfile.FIFOTYPE), "is a link or a device"),
        (member("bomb", size=2 << 20, kind=tarfile.XHDTYPE), "a header of 2097152 bytes"),
    ],
)
def test_an_archive_that_reaches_out_is_refused_and_leaves_nothing(folder, tmp_path, cache, hostile, message):
    path = make_archive(tmp_path / "mine.tar.xz", folder, extra=(hostile,))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError, match=rf"mine\.tar\.xz cannot be unpacked safely .*{message}"):
        load_dataset(path)
    assert sorted(file for file in tmp_path.iterdir() if file != cache) == before
    assert os.listdir(cache) == []


def test_an_archive_that_unpacks_to_too_much_is_refused(folder, tmp_path, cache, monkeypatch):
    path = make_archive(tmp_path / "mine.tar.xz", folder, extra=(member("pets/bomb", 100_000),))
    monkeypatch.setattr(archive, "_MAX_BYTES", 50_000)
    with pytest.raises(ValueError, match="unpacks to more than"):
        load_dataset(path)
    monkeypatch.setattr(archive, "_MAX_BYTES", 10**9)
    monkeypatch.setattr(archive, "_MAX_FILES", 5)
    with pytest.raises(ValueError, match="or 5 files"):
        load_dataset(path)
    assert os.listdir(cache) == []


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_truncated_archive_is_named_and_leaves_nothing(folder, tmp_path, cache, mode):
    path = tmp_path / "mine.tar"
    with tarfile.open(path, mode) as archive:
        archive.add(folder, "pets")
    whole = path.read_bytes()
    for share in (0.0, 0.3, 0.6):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"mine\.tar cannot be unpacked"):
            load_dataset(path)
        assert not cache.exists() or os.listdir(cache) == []


def test_a_zip_archive_with_the_separator_of_windows_is_read_as_its_folder_is(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        for path in folder.rglob("*.png"):
            member = zipfile.ZipInfo()
            member.filename, member.create_system = str(path.relative_to(folder)).replace("/", "\\"), 0
            archive.writestr(member, path.read_bytes())
    assert load_dataset(tmp_path / "mine.zip", "train").sha256 == load_dataset(folder, "train").sha256


def test_test_images_that_were_trained_with_and_one_image_in_two_classes_are_warned_of(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_dataset(folder)
    shutil.copy(folder / "train/cat/a.png", folder / "test/cat/again.png")
    with pytest.warns(UserWarning, match="1 of 3 test images are training images, such as .*again.png"):
        load_dataset(folder)
    shutil.move(folder / "test/cat/again.png", folder / "train/dog/a.png")
    with pytest.warns(UserWarning, match="cat/a.png and .*dog/a.png are one image in two classes"):
        load_dataset(folder)


def test_an_archive_that_is_replaced_by_one_of_equal_name_size_and_time_is_read_anew(folder, tmp_path):
    archive, other = (zip_of(tmp_path / name, folder) for name in ("mine.zip", "other.zip"))
    before = load_dataset(archive, "train").sha256
    # The first image of its class comes last.
    other.write_bytes(other.read_bytes().replace(b"train/cat/a.png", b"train/cat/z.png"))
    os.utime(other, ns=(archive.stat().st_atime_ns, archive.stat().st_mtime_ns))
    assert other.stat().st_size == archive.stat().st_size
    os.replace(other, archive)
    assert load_dataset(archive, "train").sha256 != before


def zip_of(
    path: Path, folder: Path, top: str = "pets/", extra: tuple[tuple[zipfile.ZipInfo, bytes], ...] = ()
) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, top + file.relative_to(folder).as_posix())
        for info, content in extra:
            archive.writestr(info, content)
    return path


@pytest.mark.parametrize("top", ["pets/", ""])
def test_a_zip_archive_is_read_as_its_folder_is_with_what_a_mac_puts_in_left_out(folder, tmp_path, top):
    expected = load_dataset(folder, "train")
    mac = [
        zipfile.ZipInfo("__MACOSX/._pets"),
        zipfile.ZipInfo(f"{top}train/cat/._a.png"),
        zipfile.ZipInfo(".DS_Store"),
    ]
    dataset = load_dataset(zip_of(tmp_path / "mine.zip", folder, top, tuple((name, b"x") for name in mac)), "train")
    assert dataset.sha256 == expected.sha256 and dataset.name == "mine.zip"


def test_names_in_a_zip_archive_are_utf_8_whether_it_says_so_or_not(folder, tmp_path):
    class_folder(folder, "train", "Gänse".encode())
    class_folder(folder, "test", "Gänse".encode())
    path = zip_of(tmp_path / "mine.zip", folder)
    said = path.read_bytes()
    assert load_dataset(path).classes[0] == "Gänse"
    # Bit 11 of the flags, six bytes into a local header and eight into one of the directory.
    unsaid = said.replace(b"PK\x03\x04\x14\0\0\x08", b"PK\x03\x04\x14\0\0\0")
    unsaid = unsaid.replace(b"PK\x01\x02\x14\x03\x14\0\0\x08", b"PK\x01\x02\x14\x03\x14\0\0\0")
    assert unsaid != said
    path.write_bytes(unsaid)
    assert load_dataset(path).classes[0] == "Gänse"


def symbolic_link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16
    return info


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (zipfile.ZipInfo("../../escaped"), "outside the destination"),
        (zipfile.ZipInfo("/escaped"), "outside the destination"),
        (symbolic_link("pets/train/cat/link.png"), "is a link"),
        (zipfile.ZipInfo("pets/train"), "cannot be unpacked"),
        (zipfile.ZipInfo(""), "cannot be unpacked"),
    ],
)
def test_a_zip_archive_that_reaches_out_is_refused_and_leaves_nothing(folder, tmp_path, cache, hostile, message):
    path = zip_of(tmp_path / "mine.zip", folder, extra=((hostile, b"/etc/hostname"),))
    with pytest.raises(ValueError, match=rf"mine\.zip cannot be unpacked safely .*{message}|{message}"):
        load_dataset(path)
    assert os.listdir(cache) == [] and not (tmp_path / "escaped").exists()


@pytest.mark.slow
@tries(300)
@given(st.sampled_from(["w:", "w:gz", "w:xz", "zip"]), st.integers(0, 10**6), st.binary(max_size=4), st.booleans())
def test_damaged_archives_are_unpacked_or_named_in_an_error(tmp_path, form, position, patch, cut):
    source, path = tmp_path / "source", tmp_path / "damaged"
    if not source.exists():
        save(source / "train/a/0.png", GREY)
    if form == "zip":
        zip_of(path, source)
    else:
        with tarfile.open(path, form) as archive:
            archive.add(source, "pets")
    data = path.read_bytes()
    position %= len(data)
    path.write_bytes(data[:position] + patch + (b"" if cut else data[position + len(patch) :]))
    try:
        assert unpack(path).is_dir()
    except ValueError as error:
        assert str(path) in str(error)
