"""The channel between the grader and a sandboxed answer: calls, values and gradients as JSON and plain bytes.

Both ends run these files; they need nothing but numpy and torch, so that the sandbox need not hold the course, and
name each other from where they lie, as `wire` there. Each end may call the functions that the other has handed it, at
any depth. `bounds` says what may cross, `line` sends and receives, `packing` and `unpacking` turn values into JSON and
bytes and back, `peer` is what calls and answers.

Gradients cross too. A tensor that wants a gradient is handed over as a leaf (an *import* there, an *export* here).
A result that hangs on imports comes back as the output of a bridge, whose backward asks the other end for the
vector-Jacobian product. Tensors that a function closes over cross as leaves without values.
"""

from .bounds import BLOB, HEADER, TOTAL, ChannelError
from .line import Line
from .packing import Packer, as_bytes, overwrite
from .peer import Peer
from .unpacking import Unpacker

__all__ = ["BLOB", "HEADER", "TOTAL", "ChannelError", "Line", "Packer", "Peer", "Unpacker", "as_bytes", "overwrite"]
