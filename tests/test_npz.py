"""Object arrays are pickles: numbers come out of honest ones, and a hostile one gets nothing done."""

from __future__ import annotations

import builtins
import os
import pickle
import pickletools
import subprocess
import zipfile

import numpy as np
import pytest
from checkpoints import pack, python_2, save_by_protocol
from examples import tries
from hypothesis import given
from hypothesis import strategies as st

from ann_snn_utils.ann.tensorlayer import LARGEST_MEMBER, read_object_array

ARRAYS = [
    np.arange(24, dtype="<f4").reshape(2, 3, 4),
    np.asfortranarray(np.arange(6, dtype="<f8").reshape(2, 3)),
    np.array([1.5, -0.25], dtype=">f4"),
    np.array([-1, 0, 1], dtype=np.int8),
    np.arange(256, dtype=np.uint8),
    np.zeros((0, 5), dtype=np.float32),
    np.float16([[0.5]]),
]


def listed(*arrays) -> np.ndarray:
    out = np.empty(len(arrays), dtype=object)
    for index, array in enumerate(arrays):
        out[index] = array
    return out


def same(found, expected) -> bool:
    return len(found) == len(expected) and all(
        a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_saves_is_read_back(tmp_path, save):
    save(tmp_path / "a.npz", params=listed(*ARRAYS))
    assert same(read_object_array(tmp_path / "a.npz"), ARRAYS)


@pytest.mark.parametrize(
    ("protocol", "old_numpy"), [(2, True), (2, False), (3, True), (3, False), (4, False), (5, False)]
)
def test_every_binary_pickle_protocol_is_read(tmp_path, protocol, old_numpy):
    filled = [array for array in ARRAYS if array.size]
    path = save_by_protocol(tmp_path / "a.npz", listed(*filled), protocol, old_numpy)
    assert same(read_object_array(path), filled)


def test_a_file_that_python_2_pickled_is_read(tmp_path):
    filled = [array for array in ARRAYS if array.size]
    assert same(read_object_array(pack(tmp_path / "a.npz", python_2(*filled))), filled)


def test_a_scalar_is_an_array_without_dimensions(tmp_path):
    np.savez(tmp_path / "a.npz", params=listed(np.float32(2.5)))
    assert same(read_object_array(tmp_path / "a.npz"), [np.array(2.5, dtype=np.float32)])


def test_a_missing_file_is_not_a_malformed_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.npz"):
        read_object_array(tmp_path / "gone.npz")
    with pytest.raises(FileNotFoundError, match="not a file"):
        read_object_array(tmp_path)


def test_a_truncated_file_is_named_in_the_error(tmp_path):
    np.savez(tmp_path / "a.npz", params=listed(*ARRAYS))
    whole = (tmp_path / "a.npz").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.npz.*no \.npz \(zip\) file, cut short or damaged"):
            read_object_array(tmp_path / "cut.npz")


def test_a_damaged_byte_is_noticed(tmp_path):
    np.savez(tmp_path / "a.npz", params=listed(*ARRAYS))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[content.index(bytes(ARRAYS[4]))] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged \(Bad CRC-32"):
        read_object_array(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"weights": listed(*ARRAYS)}, r"\['weights\.npy'\], and params\.npy alone"),
        ({"params": listed(*ARRAYS), "more": np.ones(2)}, "alone is expected"),
        ({}, r"it holds \[\]"),
        ({"params": np.ones((3, 3))}, "not an array of objects"),
        ({"params": np.array(None)}, "claims another shape"),
        ({"params": listed(np.ones(2), "text")}, "entry 1 is no array"),
        ({"params": listed([1, 2])}, "entry 0 is no array"),
        ({"params": listed(np.array(["a", "b"]))}, "entry 0 holds 'U1' values"),
        ({"params": listed(np.ones(2, dtype=np.complex64))}, "entry 0 holds 'c8' values"),
        ({"params": listed(listed(np.ones(2)))}, "entry 0 is no array of numbers"),
        ({"params": listed(np.zeros(2, dtype=[("x", "f4")]))}, "not a checkpoint of plain arrays"),
        ({"params": listed({"a": np.ones(2)})}, "EMPTY_DICT"),
    ],
)
def test_other_contents_are_refused_and_named(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message) as error:
        read_object_array(tmp_path / "a.npz")
    assert "a.npz" in str(error.value)


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def touch(path) -> Calls:
    return Calls(open, str(path), "w")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_no_call_of_a_hostile_pickle_is_made(tmp_path, protocol):
    mark = tmp_path / "mark"
    attacks = {
        "system": Calls(os.system, f"touch {mark}"),
        "eval": Calls(builtins.eval, f"open({str(mark)!r}, 'w')"),
        "open": touch(mark),
        "getattr": Calls(getattr, touch(mark), "name"),
        "Popen": Calls(subprocess.Popen, ["touch", str(mark)]),
        "numpy.load": Calls(np.load, str(mark)),
    }
    for name, attack in attacks.items():
        for position, program in enumerate([attack, listed(np.ones(2), attack), listed((np.ones(1), [attack]))]):
            path = pack(tmp_path / f"{position}.npz", pickle.dumps(program, protocol=protocol))
            with pytest.raises(ValueError, match=rf"asks for '.*{name}'.*do not trust"):
                read_object_array(path)
    assert not mark.exists()


def test_the_attacks_would_work_on_an_ordinary_unpickler(tmp_path):
    pickle.loads(pickle.dumps(listed(touch(tmp_path / "mark"))))
    assert (tmp_path / "mark").exists()


def program(*parts: bytes) -> bytes:
    return b"\x80\x02" + b"".join(parts) + b"."


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
NDARRAY, DTYPE = b"cnumpy\nndarray\n", b"cnumpy\ndtype\n"
HUGE = b"\x8a\x08" + (2**60).to_bytes(8, "little")
F4 = DTYPE + b"(" + text("f4") + b"K\x00K\x01tR"
OBJECTS = DTYPE + b"(" + text("O8") + b"K\x00K\x01tR"


def array(shape: bytes, dtype: bytes, data: bytes) -> bytes:
    """Opcodes of one array, made as NumPy makes it, then given a state."""
    made = RECONSTRUCT + b"(" + NDARRAY + b"K\x00\x85C\x01btR"
    return made + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb"


def one(inner: bytes) -> bytes:
    return program(array(b"K\x01\x85", OBJECTS, b"](" + inner + b"e"))


def test_the_assembled_form_is_valid_when_it_is_honest(tmp_path):
    honest = one(array(b"K\x02\x85", F4, b"C\x08" + np.float32([1, 2]).tobytes()))
    assert same(read_object_array(pack(tmp_path / "a.npz", honest)), [np.float32([1, 2])])


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        # Admitted constructors, absurd arguments.
        (program(RECONSTRUCT, b"(", NDARRAY, HUGE, b"\x85C\x01btR"), "not hold a list"),
        (one(RECONSTRUCT + b"(" + NDARRAY + HUGE + b"\x85C\x01btR"), "entry 0 is no array"),
        (one(array(HUGE + b"\x85", F4, b"C\x04abcd")), "entry 0 has shape .* but 4 bytes"),
        (one(array(HUGE + HUGE + b"\x86", F4, b"C\x00")), "but 0 bytes"),
        (one(array(b"J\xff\xff\xff\xff\x85", F4, b"C\x04abcd")), "no usable shape"),
        (one(array(b"\x88\x85", F4, b"C\x04abcd")), "no usable shape"),
        (one(array(b"(" + b"K\x01" * 9 + b"t", F4, b"C\x04abcd")), "no usable shape"),
        (one(array(b"N", F4, b"C\x04abcd")), "no usable shape"),
        (one(array(b"K\x01\x85", F4, b"K\x04")), "no array of numbers"),
        (one(array(b"K\x01\x85", b"N", b"C\x04abcd")), "no array of numbers"),
        (one(array(b"K\x01\x85", DTYPE, b"C\x04abcd")), "no array of numbers"),
        (one(array(b"K\x01\x85", OBJECTS, b"C\x08abcdefgh")), "'O8' values"),
        (one(array(b"K\x01\x85", DTYPE + b"(" + text("V" + "9" * 99) + b"tR", b"C\x04abcd")), "not numbers"),
        (one(DTYPE + b"(tR"), "TypeError"),
        (one(RECONSTRUCT + b"(tR"), "TypeError"),
        (one(NDARRAY + b"(" + HUGE + b"\x85tR"), "TypeError"),
        (one(RECONSTRUCT + text("f") + b"b"), "not a checkpoint"),
        (one(DTYPE + b"(K\x03tb"), "TypeError"),
        (one(b"c_codecs\nencode\n(" + text("a") + text("idna") + b"tR"), "encodes something"),
        (one(b"cnumpy.core.numeric\n_frombuffer\n(C\x04abcd" + F4 + HUGE + b"\x85" + text("C") + b"tR"), "4 bytes"),
        (one(b"cnumpy.core.numeric\n_frombuffer\n(C\x04abcd" + F4 + b"K\x01\x85" + text("K") + b"tR"), "neither C"),
        (one(b"cnumpy.core.multiarray\nscalar\n(" + F4 + b"C\x02ab" + b"tR"), r"shape \(\) but 2 bytes"),
        # Lists that are not what they claim.
        (program(array(HUGE + b"\x85", OBJECTS, b"](e")), "claims another shape"),
        (program(array(b"K\x01\x85", OBJECTS, b"]")), "list of 0 arrays claims another shape"),
        (program(array(b"K\x01\x85", OBJECTS, b"K\x01")), "not hold a list"),
        (program(b"N"), "not hold a list"),
        (program(b"]", b"q\x00h\x00a"), "not hold a list"),
        # Names that would reach further.
        (program(b"cnumpy\nndarray.tofile\n"), "'numpy.ndarray.tofile'"),
        (program(b"cnumpy.core.multiarray\n_reconstruct.__globals__\n"), "__globals__"),
        (program(b"cnumpy.f2py\ndiagnose\n"), "'numpy.f2py.diagnose'"),
        (program(text("os"), text("system"), b"\x93"), "'os.system'"),
        (program(b"c__main__\n" + b"x" * 5000 + b"\n"), "do not trust"),
        # Opcodes with another way to build things, or to take memory.
        (program(b"(ios\nsystem\n"), "uses INST"),
        (program(b"}", text("a"), b"K\x01s"), "uses EMPTY_DICT"),
        (program(NDARRAY, b")\x81"), "uses NEWOBJ"),
        (program(b"Pname\n"), "uses PERSID"),
        (program(b"\x82\x01"), "uses EXT1"),
        (program(b"Nr\xff\xff\xff\x7f"), "memo place 2147483647"),
        (program(b"\x8e" + (2**62).to_bytes(8, "little")), "not a checkpoint"),
        (program(b"\x96" + (2**40).to_bytes(8, "little")), "not a checkpoint"),
        (program(b"\x95" + (2**50).to_bytes(8, "little"), b"N"), "not a checkpoint"),
        (program(b"N" * 100_001), "at step 100000"),
        (program(b"h\x07"), "not a checkpoint"),
        (program(b"t"), "not a checkpoint"),
        (b"", "not a checkpoint"),
        (b"\x80\x63N.", "not a checkpoint"),
        (b"I1\n.", "uses INT"),
        (b"\x80\x04N", "not a checkpoint"),
    ],
)
def test_an_absurd_pickle_is_refused_with_the_file_named(tmp_path, hostile, message):
    with pytest.raises(ValueError, match=message) as error:
        read_object_array(pack(tmp_path / "a.npz", hostile))
    assert str(error.value).startswith(f"{tmp_path / 'a.npz'} is not a checkpoint")
    assert len(str(error.value)) < len(str(tmp_path)) + 300


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    pack(path, b"\x00" * 1000, compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    claimed = (LARGEST_MEMBER + 1).to_bytes(4, "little")
    directory = content.rindex(b"PK\x01\x02")
    content[22:26] = content[directory + 24 : directory + 28] = claimed
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"claims {LARGEST_MEMBER + 1} bytes"):
        read_object_array(path)


def test_a_member_that_unpacks_to_more_than_it_claims_is_cut_off(tmp_path):
    path = tmp_path / "bomb.npz"
    pack(path, b"\x00" * 1_000_000, compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    content[22:26] = content[directory + 24 : directory + 28] = (500).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_object_array(path)


def test_compression_that_numpy_does_not_write_is_refused(tmp_path):
    with pytest.raises(ValueError, match="method 14"):
        read_object_array(pack(tmp_path / "a.npz", b"", compression=zipfile.ZIP_LZMA))


def test_two_members_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("params.npy", b"")
        archive.writestr("params.npy", b"")
    with pytest.raises(ValueError, match="alone is expected"):
        read_object_array(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no numpy file at all", b"\x93NUMPY\x01\x00\xff\xff{}"])
def test_a_member_that_is_no_npy_file_is_refused(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("params.npy", content)
    with pytest.raises(ValueError, match="not an array of objects"):
        read_object_array(tmp_path / "a.npz")


EXAMPLES = int(os.environ.get("ANN_SNN_FUZZ") or 300)


@tries(EXAMPLES)
@given(st.data())
def test_a_pickle_with_changed_bytes_gives_numbers_or_a_value_error(tmp_path_factory, data):
    programs = [python_2(*ARRAYS[:3])] + [pickle.dumps(listed(*ARRAYS[:3]), protocol=n) for n in (2, 3, 4, 5)]
    whole = bytearray(data.draw(st.sampled_from(programs)))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = pack(tmp_path_factory.mktemp("fuzz") / "a.npz", bytes(whole))
    try:
        arrays = read_object_array(path)
    except ValueError as error:
        assert "a.npz is not a checkpoint" in str(error)
    else:
        assert all(array.dtype.kind in "fiu" for array in arrays)


OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]


@tries(EXAMPLES)
@given(st.lists(st.sampled_from(OPCODES), max_size=30), st.binary())
def test_random_opcodes_give_a_value_error(tmp_path_factory, opcodes, tail):
    path = pack(tmp_path_factory.mktemp("fuzz") / "a.npz", b"".join(opcodes) + tail)
    with pytest.raises(ValueError, match="is not a checkpoint"):
        read_object_array(path)
