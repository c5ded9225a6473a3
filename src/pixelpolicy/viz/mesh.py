"""Boxes as a mesh file: glTF 2.0 in its binary form (.glb), which Blender, browsers and viewers open.

Every box is a node with its place, turn and size over one shared cube, and a material of its colour. What moves
becomes an animation of the nodes. glTF has y up and metres for units.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from pixelpolicy.errors import FigureError
from pixelpolicy.viz.boxes import CORNERS, FACES, Boxes, turn

_FLOAT, _SHORT = 5126, 5123  # glTF's numbers for types
_VERTICES, _INDICES = 34962, 34963  # and for what a buffer is for


def save_mesh(boxes: Boxes, path: str | Path, *, up: str = "z", fps: float = 8) -> Path:
    """Write an object to ``path``, which ends in .glb; what moves is animated, ``fps`` frames a second.

    ``up`` says which axis of the boxes points up. Raises `FigureError` for another ending or axis, a rate that is not
    positive, boxes that are all without size, and where the disk refuses; an older file then stands as it was.
    """
    path = Path(path).absolute()
    if path.suffix != ".glb":
        raise FigureError(f"{path.name} does not end in .glb, which is what is written; call it {path.stem}.glb")
    content = glb(boxes, up=up, fps=fps)
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise FigureError(f"could not write {path} ({error}); free some space or choose another folder") from error
    return path


def glb(boxes: Boxes, *, up: str = "z", fps: float = 8) -> bytes:
    """The bytes of the file that `save_mesh` writes."""
    if up not in ("y", "z"):
        raise FigureError(f"up is {up!r}; say which axis points up, 'y' or 'z'")
    if not fps > 0:
        raise FigureError(f"fps is {fps}; give frames a second above 0")
    here = boxes.halves.reshape(boxes.frames, -1, 3).max(-1) > 0  # [frames, boxes]
    if not here.any():
        raise FigureError("every box has size 0, so there is nothing to write")
    file = _File()
    cube = file.cube()
    upright = turn(-np.pi / 2, 0) if up == "z" else np.eye(3)
    keep = here.any(0).nonzero()[0]
    shape = (boxes.frames, -1, 3)
    centres = boxes.centres.reshape(shape)[:, keep] @ upright.T
    halves = boxes.halves.reshape(shape)[:, keep]
    turns = _quaternions(upright @ boxes.rotations.reshape(*shape, 3)[:, keep])
    for box, colour in enumerate(boxes.colours.reshape(shape)[0, keep]):
        file.box(cube, colour, centres[:, box], turns[:, box], halves[:, box])
    if boxes.moving:
        file.animate(np.arange(boxes.frames) / fps, centres, turns, halves)
    return file.finished()


def _quaternions(rotations: np.ndarray) -> np.ndarray:
    """``[frames, boxes, 4]`` as (x, y, z, w), each on the same side as the frame before: viewers interpolate them."""
    found = Rotation.from_matrix(rotations.reshape(-1, 3, 3)).as_quat().reshape(*rotations.shape[:2], 4)
    for frame in range(1, len(found)):
        found[frame] *= np.where((found[frame] * found[frame - 1]).sum(-1, keepdims=True) < 0, -1, 1)
    return found


class _File:
    def __init__(self) -> None:
        self.bytes = bytearray()
        self.json: dict = {
            "asset": {"version": "2.0", "generator": "pixelpolicy"},
            "scene": 0,
            "scenes": [{"nodes": []}],
            "nodes": [],
            "meshes": [],
            "materials": [],
            "accessors": [],
            "bufferViews": [],
        }

    def _add(self, key: str, entry: dict) -> int:
        self.json[key].append(entry)
        return len(self.json[key]) - 1

    def numbers(self, array: np.ndarray, kind: str, *, indices: bool = False, target: int | None = None) -> int:
        """Put an array ``[count, ...]`` into the buffer; the number of its accessor."""
        array = np.ascontiguousarray(array, dtype="<u2" if indices else "<f4")
        view = {"buffer": 0, "byteOffset": len(self.bytes), "byteLength": array.nbytes}
        self.bytes += array.tobytes() + bytes(-array.nbytes % 4)
        rows = array.reshape(len(array), -1)
        entry = {
            "bufferView": self._add("bufferViews", view | ({"target": target} if target else {})),
            "componentType": _SHORT if indices else _FLOAT,
            "count": len(array),
            "type": kind,
            "min": rows.min(0).tolist(),
            "max": rows.max(0).tolist(),
        }
        return self._add("accessors", entry)

    def cube(self) -> dict:
        """The cube with half sizes 1: four vertices a face, so that edges stay sharp."""
        places = CORNERS[FACES].reshape(-1, 3)
        normals = np.repeat(CORNERS[FACES].mean(1), 4, axis=0)
        corners = np.arange(24).reshape(6, 4)[:, [0, 1, 2, 0, 2, 3]].reshape(-1)
        return {
            "attributes": {
                "POSITION": self.numbers(places, "VEC3", target=_VERTICES),
                "NORMAL": self.numbers(normals, "VEC3", target=_VERTICES),
            },
            "indices": self.numbers(corners, "SCALAR", indices=True, target=_INDICES),
        }

    def box(self, cube: dict, colour: np.ndarray, centres: np.ndarray, turns: np.ndarray, halves: np.ndarray) -> None:
        linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)  # glTF wants no sRGB
        paint = {"baseColorFactor": [*linear.tolist(), 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.9}
        material = self._add("materials", {"pbrMetallicRoughness": paint})
        mesh = self._add("meshes", {"primitives": [cube | {"material": material}]})
        place = {"translation": centres[0].tolist(), "rotation": turns[0].tolist(), "scale": halves[0].tolist()}
        node = self._add("nodes", {"name": f"box {len(self.json['nodes'])}", "mesh": mesh} | place)
        self.json["scenes"][0]["nodes"].append(node)

    def animate(self, times: np.ndarray, centres: np.ndarray, turns: np.ndarray, halves: np.ndarray) -> None:
        clock, samplers, channels = self.numbers(times, "SCALAR"), [], []
        for node in range(centres.shape[1]):
            for path, values, kind in (
                ("translation", centres, "VEC3"),
                ("rotation", turns, "VEC4"),
                ("scale", halves, "VEC3"),
            ):
                channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
                samplers.append({"input": clock, "output": self.numbers(values[:, node], kind)})
        self.json["animations"] = [{"samplers": samplers, "channels": channels}]

    def finished(self) -> bytes:
        self.json["buffers"] = [{"byteLength": len(self.bytes)}]
        text = json.dumps(self.json, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        chunks = [(b"JSON", text), (b"BIN\0", bytes(self.bytes))]
        body = b"".join(struct.pack("<I4s", len(chunk), kind) + chunk for kind, chunk in chunks)
        return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body
