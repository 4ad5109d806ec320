"""The tree against the vectors of RFC 6962/9162 implementations, and against its own definition.

The leaves, roots and paths below are the test data that the implementations of Certificate Transparency share
(``merkletree/merkle_tree_test.cc`` of google/certificate-transparency; ``testdata`` of transparency-dev/merkle).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from erp.control_plane import merkle
from erp.control_plane.merkle import (
    CompactRange,
    InvalidProofError,
    check_consistency,
    check_inclusion,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    node_hash,
)

LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    bytes.fromhex(text)
    for text in (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    )
]
INCLUSION = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (3, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
    (
        2,
        5,
        [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]
"""Number of the leaf (from 1), size, path."""
CONSISTENCY = [
    (1, 1, []),
    (
        1,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        6,
        8,
        [
            "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
            "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        ],
    ),
    (
        2,
        5,
        [
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        ],
    ),
]


def by_definition(leaves: Sequence[bytes]) -> bytes:
    """``MTH`` of section 2.1.1, word for word."""
    if not leaves:
        return merkle.EMPTY
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


def path(ranges: Sequence[tuple[int, int]], leaves: Sequence[bytes]) -> list[bytes]:
    def subtree(one: merkle.Subtree) -> bytes:
        level, index = one
        return by_definition(leaves[index << level : index + 1 << level])

    return merkle.proof(ranges, subtree)


def test_the_roots_are_those_of_the_shared_vectors() -> None:
    tree = CompactRange()
    assert tree.root() == ROOTS[0]
    for leaf, root in zip(LEAVES, ROOTS[1:], strict=True):
        tree.append(leaf_hash(leaf))
        assert tree.root() == root


@pytest.mark.parametrize(("number", "size", "hashes"), INCLUSION)
def test_inclusion_proofs_are_those_of_the_shared_vectors(number: int, size: int, hashes: list[str]) -> None:
    expected = [bytes.fromhex(text) for text in hashes]
    assert path(inclusion_ranges(number - 1, size), LEAVES) == expected
    check_inclusion(leaf_hash(LEAVES[number - 1]), number - 1, size, expected, ROOTS[size])


@pytest.mark.parametrize(("first", "second", "hashes"), CONSISTENCY)
def test_consistency_proofs_are_those_of_the_shared_vectors(first: int, second: int, hashes: list[str]) -> None:
    expected = [bytes.fromhex(text) for text in hashes]
    assert path(consistency_ranges(first, second), LEAVES) == expected
    check_consistency(first, second, ROOTS[first], ROOTS[second], expected)


def test_proofs_of_every_leaf_and_every_pair_of_sizes_hold_and_no_damaged_one_does() -> None:
    leaves = [bytes([number]) for number in range(20)]
    roots = [by_definition(leaves[:size]) for size in range(21)]
    for size in range(1, 21):
        for index in range(size):
            proof = path(inclusion_ranges(index, size), leaves)
            check_inclusion(leaf_hash(leaves[index]), index, size, proof, roots[size])
            for wrong in damaged(proof):
                with pytest.raises(InvalidProofError):
                    check_inclusion(leaf_hash(leaves[index]), index, size, wrong, roots[size])
    for first, second in itertools.combinations_with_replacement(range(1, 21), 2):
        proof = path(consistency_ranges(first, second), leaves)
        check_consistency(first, second, roots[first], roots[second], proof)
        for wrong in damaged(proof):
            with pytest.raises(InvalidProofError):
                check_consistency(first, second, roots[first], roots[second], wrong)


def damaged(proof: list[bytes]) -> list[list[bytes]]:
    """The ways in which the shared vectors damage a proof."""
    garbage = bytes(32)
    flipped = [[*proof[:at], bytes([one[0] ^ 16, *one[1:]]), *proof[at + 1 :]] for at, one in enumerate(proof)]
    return [*flipped, *([proof[:-1]] if proof else []), [*proof, garbage], [garbage, *proof]]


@pytest.mark.parametrize(("first", "second"), [(0, 0), (0, 3), (4, 3)])
def test_sizes_that_prove_nothing_are_refused(first: int, second: int) -> None:
    with pytest.raises(InvalidProofError):
        check_consistency(first, second, ROOTS[first], ROOTS[second], [])
    with pytest.raises(InvalidProofError):
        check_inclusion(leaf_hash(b""), 3, 3, [], ROOTS[3])


def test_a_compact_range_goes_on_where_it_was_packed_and_hands_out_the_subtrees_to_keep() -> None:
    leaves = [number.to_bytes(2) for number in range(600)]
    tree, kept = CompactRange(), []
    for leaf in leaves:
        tree = CompactRange(tree.size, tree.packed())
        kept += tree.append(leaf_hash(leaf))
    assert kept == [(8, 0, by_definition(leaves[:256])), (8, 1, by_definition(leaves[256:512]))]
    assert tree.root() == by_definition(leaves)
    with pytest.raises(ValueError, match="A tree of 3 leaves has 2 full subtrees, not 1"):
        CompactRange(3, bytes(32))
