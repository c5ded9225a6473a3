"""Mesh files, read back by a parser that shares nothing with the writer."""

import json
import struct

import numpy as np
import pytest

from pixelpolicy import viz
from pixelpolicy.errors import FigureError, SizeError
from pixelpolicy.viz.boxes import Boxes, turn

RNG = np.random.default_rng(0)
STILL = Boxes(
    centres=RNG.normal(size=(3, 3)),
    halves=RNG.uniform(0.1, 0.6, (3, 3)),
    colours=[[1, 0, 0], [0.2, 0.5, 0.9], [0, 0, 0]],
    rotations=turn(np.array([0.3, -1.2, 2.5]), 1) @ turn(np.array([0.7, 0.1, -2.0]), 2),
)
MOVING = Boxes(
    centres=RNG.normal(size=(5, 2, 3)),
    halves=[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]],
    colours=[[1, 0, 0], [0, 1, 0]],
    rotations=turn(np.linspace(0, 6, 5)[:, None] * [1, -1], 0),
)
UPRIGHT = {"y": np.eye(3), "z": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])}
COMPONENTS = {5126: ("f", 4), 5123: ("H", 2)}
WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}


def parsed(path):
    """The file's JSON, and a function that reads one accessor, number by number."""
    data = path.read_bytes()
    magic, version, length = struct.unpack_from("<4sII", data)
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    tree = json.loads(data[20 : 20 + size])
    binary_size, kind = struct.unpack_from("<I4s", data, 20 + size)
    assert kind == b"BIN\0" and 28 + size + binary_size == len(data) == 28 + size + tree["buffers"][0]["byteLength"]

    def read(index):
        accessor = tree["accessors"][index]
        view = tree["bufferViews"][accessor["bufferView"]]
        code, width = COMPONENTS[accessor["componentType"]]
        count = accessor["count"] * WIDTHS[accessor["type"]]
        assert count * width == view["byteLength"] and view["byteOffset"] % width == 0
        numbers = struct.unpack_from(f"<{count}{code}", data, 28 + size + view["byteOffset"])
        rows = np.array(numbers).reshape(accessor["count"], -1)
        np.testing.assert_allclose(rows.min(0), accessor["min"], atol=1e-6)
        np.testing.assert_allclose(rows.max(0), accessor["max"], atol=1e-6)
        return rows

    return tree, read


def turned(quaternion, points):
    """``v + 2 w (u x v) + 2 u x (u x v)``, the turn by a unit quaternion ``(u, w)``."""
    u, w = np.asarray(quaternion[:3]), quaternion[3]
    once = np.cross(u, points)
    return points + 2 * (w * once + np.cross(u, once))


def triangles(tree, read, node, place):
    """Corners ``[12, 3, 3]`` of one box's triangles in the scene, and their normals from the file."""
    (primitive,) = tree["meshes"][tree["nodes"][node]["mesh"]]["primitives"]
    assert primitive.get("mode", 4) == 4
    index = read(primitive["indices"]).reshape(-1, 3).astype(int)
    corners = read(primitive["attributes"]["POSITION"])
    normals = read(primitive["attributes"]["NORMAL"])
    placed = turned(place["rotation"], corners * place["scale"]) + place["translation"]
    return placed[index], turned(place["rotation"], normals)[index]


def volume(corners):
    return np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6


@pytest.mark.parametrize("up", ["y", "z"])
def test_every_box_is_where_it_was_closed_and_of_its_colour(tmp_path, up):
    path = viz.save_mesh(STILL, tmp_path / "new" / "still.glb", up=up)
    tree, read = parsed(path)
    assert tree["scenes"][tree["scene"]]["nodes"] == [0, 1, 2] and "animations" not in tree
    for box, expected in enumerate(STILL.corners() @ UPRIGHT[up].T):
        corners, normals = triangles(tree, read, box, tree["nodes"][box])
        found = np.unique(np.round(corners.reshape(-1, 3), 4), axis=0)
        assert len(found) == 8
        np.testing.assert_allclose(found, np.unique(np.round(expected, 4), axis=0), atol=2e-4)
        # closed, and its faces look outwards: the divergence theorem gives the volume, with its sign
        assert volume(corners) == pytest.approx(8 * np.prod(STILL.halves[box]), rel=1e-4)
        faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        faces /= np.linalg.norm(faces, axis=-1, keepdims=True)
        for corner in range(3):
            np.testing.assert_allclose(normals[:, corner], faces, atol=1e-4)
        material = tree["materials"][tree["meshes"][tree["nodes"][box]["mesh"]]["primitives"][0]["material"]]
        linear = np.array(material["pbrMetallicRoughness"]["baseColorFactor"])
        srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        np.testing.assert_allclose(srgb, [*STILL.colours[box], 1], atol=1e-6)


def test_what_moves_is_animated(tmp_path):
    tree, read = parsed(viz.save_mesh(MOVING, tmp_path / "moving.glb", up="y", fps=4))
    (animation,) = tree["animations"]
    places = [{}, {}]
    for channel in animation["channels"]:
        sampler = animation["samplers"][channel["sampler"]]
        np.testing.assert_allclose(read(sampler["input"])[:, 0], np.arange(5) / 4)
        places[channel["target"]["node"]][channel["target"]["path"]] = read(sampler["output"])
    for box in range(2):
        turns = places[box]["rotation"]
        assert (np.einsum("ij,ij->i", turns[1:], turns[:-1]) > 0).all()  # the short way round
        for frame in range(5):
            place = {path: values[frame] for path, values in places[box].items()}
            corners, _ = triangles(tree, read, box, place)
            expected = MOVING.at(frame).corners()[box]
            found = np.unique(np.round(corners.reshape(-1, 3), 4), axis=0)
            np.testing.assert_allclose(found, np.unique(np.round(expected, 4), axis=0), atol=3e-4)


def test_rows_of_the_world_of_boxes():
    rows = np.array([[1, 0, 1, 2, 0.1, -0.2, 0.3, 0.5, 1.2, -0.1], [0.2, 1, 1, 1, 1, 1, 1, 0, 0, 0]])
    boxes = Boxes.from_rows(rows)
    np.testing.assert_allclose(boxes.centres, rows[:, 1:4])
    np.testing.assert_allclose(boxes.halves, [[0.1, 0, 0.3], [0, 0, 0]])
    np.testing.assert_allclose(boxes.colours[0], [0.5, 1, 0])


def test_a_box_without_size_is_left_out(tmp_path):
    some = Boxes(STILL.centres, STILL.halves * np.array([[1], [0], [1]]), STILL.colours)
    assert len(parsed(viz.save_mesh(some, tmp_path / "some.glb"))[0]["nodes"]) == 2


def test_what_is_refused_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.glb"
    path.write_text("old")
    for words, says in [({"up": "x"}, "'y' or 'z'"), ({"fps": 0}, "above 0")]:
        with pytest.raises(FigureError, match=says):
            viz.save_mesh(STILL, path, **words)
    with pytest.raises(FigureError, match="size 0"):
        viz.save_mesh(Boxes(STILL.centres, np.zeros(3), np.ones(3)), path)
    with pytest.raises(FigureError, match="call it a.glb"):
        viz.save_mesh(STILL, tmp_path / "a.stl")
    (tmp_path / "b.glb").mkdir()
    with pytest.raises(FigureError, match="could not write"):
        viz.save_mesh(STILL, tmp_path / "b.glb")
    assert path.read_text() == "old" and {p.name for p in tmp_path.iterdir()} == {"a.glb", "b.glb"}


@pytest.mark.parametrize(
    ("centres", "halves", "colours", "rotations", "says"),
    [
        (np.zeros((2, 3)), np.ones((3, 3)), np.ones(3), None, "do not fit"),
        (np.zeros((2, 4)), np.ones(3), np.ones(3), None, "do not fit"),
        (np.zeros(3), np.ones(3), np.ones(3), None, "one at least"),
        (np.zeros((0, 3)), np.ones(3), np.ones(3), None, "one at least"),
        (np.full((2, 3), np.nan), np.ones(3), np.ones(3), None, "finite"),
        (np.zeros((2, 3)), -np.ones(3), np.ones(3), None, "0 or more"),
        (np.zeros((2, 3)), np.ones(3), np.full(3, 255), None, "0 to 1"),
        (np.zeros((2, 3)), np.ones(3), np.ones(3), np.ones((3, 3)), "length 1"),
    ],
)
def test_boxes_that_do_not_fit(centres, halves, colours, rotations, says):
    with pytest.raises(SizeError, match=says):
        Boxes(centres, halves, colours, rotations)
