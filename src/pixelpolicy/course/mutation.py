"""From a function's source to its mutants: the same function with one small mistake in it.

mutmut and cosmic-ray change installed packages and ask a whole test suite; here one function in a notebook is asked of
one check, and the mistakes are those of this course (a detached gradient, a wrong axis): the operators are our own.

An operator is a function that yields what may stand in the place of one node of the syntax tree. Signatures,
docstrings, error messages, casts and `zip(strict=...)` are left alone: no check is about them.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pixelpolicy.course.source import plain
from pixelpolicy.errors import LabError


@dataclass(frozen=True)
class Mutation:
    """A mutant: which `operator` made `after` of the statement `before`, in which line; `code` is the whole cell.

    `id` is the operator and the changed statement, numbered where the same comes up twice: it outlives edits elsewhere.
    """

    id: str
    operator: str
    line: int
    before: str
    after: str
    code: str

    @property
    def diff(self) -> str:
        return f"- {self.before}\n+ {self.after}"


Operator = Callable[[ast.AST, ast.AST], Iterator[ast.AST]]
OPERATORS: dict[str, list[Operator]] = {}


def operator(name: str) -> Callable[[Operator], Operator]:
    def keep(function: Operator) -> Operator:
        OPERATORS.setdefault(name, []).append(function)
        return function

    return keep


def mutations(code: str, name: str) -> list[Mutation]:
    """Every mutant of the function `name` in `code`, in the order of its lines; the same code gives the same ones.

    No two are the same program, none is the one given. Raises LabError where `code` does not define the function.
    """
    tree = ast.parse(plain(code))
    function = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name), None)
    if function is None:
        raise LabError(f"there is no function {name!r} to make mutants of")
    seen, found, count = {ast.dump(ast.parse(ast.unparse(tree)))}, [], {}
    for block, place in _statements(function):
        statement = block[place]
        if isinstance(statement, ast.Raise) or (place == 0 and block is function.body and _is_docstring(statement)):
            continue
        before = _header(statement)
        spots = list(_spots(statement, block, place))
        for kind, operators in (*OPERATORS.items(), ("detached gradient", [_detached(function)])):
            for owner, field, index, node, parent in spots:
                for new in (new for change in operators for new in change(node, parent)):
                    _put(owner, field, index, new)
                    after, text = _header(block[place]), ast.unparse(tree)
                    _put(owner, field, index, node)
                    try:
                        dump = ast.dump(ast.parse(text))
                    except SyntaxError:
                        continue
                    if dump not in seen:
                        seen.add(dump)
                        id = f"{kind}: {f'no {before}' if isinstance(new, ast.Pass) else after}"
                        count[id] = count.get(id, 0) + 1
                        id += f" #{count[id]}" if count[id] > 1 else ""
                        found.append(Mutation(id, kind, statement.lineno, before, after, text))
    return found


# The tree -------------------------------------------------------------------------------------------------------------


def _statements(node: ast.AST) -> Iterator[tuple[list[ast.stmt], int]]:
    """Each statement below a node, as the block it stands in and its place there."""
    for block in (getattr(node, field, []) for field in ("body", "orelse", "finalbody")):
        for place in range(len(block)):
            yield block, place
            yield from _statements(block[place])


def _spots(statement: ast.stmt, block: list, place: int) -> Iterator[tuple]:
    """The statement and every expression in it that may be changed: owner, field, index, node, parent."""
    yield None, block, place, statement, statement
    yield from _below(statement)


def _below(parent: ast.AST) -> Iterator[tuple]:
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns", "args") and not isinstance(parent, ast.Call):
            continue
        for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
            inside = isinstance(node, ast.expr | ast.withitem | ast.comprehension | ast.keyword | ast.Slice)
            if not inside or isinstance(node, ast.JoinedStr):
                continue
            if isinstance(node, ast.expr):
                yield parent, field, index, node, parent
            if not isinstance(getattr(node, "ctx", None), ast.Store) or isinstance(node, ast.Subscript):
                yield from _below(node)


def _put(owner: ast.AST | None, field: str | list, index: int | None, node: ast.AST) -> None:
    if owner is None:
        field[index] = node
    elif index is None:
        setattr(owner, field, node)
    else:
        getattr(owner, field)[index] = node


def _header(statement: ast.stmt) -> str:
    return ast.unparse(ast.fix_missing_locations(statement)).splitlines()[0]


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_tensor(annotation: ast.expr | None) -> bool:
    text = ast.unparse(annotation) if annotation is not None else ""
    return text == "Tensor" or text.startswith(("Float[Tensor", "tuple[Float[Tensor", "tuple[Tensor"))


def _number(node: ast.AST) -> int | float | None:
    """The number that a node writes down, its sign with it."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _number(node.operand)
        return None if value is None else -value
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    return None


def _written(value: int | float) -> ast.expr:
    return ast.parse(repr(value), mode="eval").body


def _binary(left: ast.expr, op: ast.operator, right: ast.expr) -> ast.BinOp:
    return ast.BinOp(left, op, right)


def _call(node: ast.Call, **changes) -> ast.Call:
    return ast.Call(**{"func": node.func, "args": node.args, "keywords": node.keywords} | changes)


def _called(node: ast.AST) -> tuple[str, bool]:
    """What a call calls, and whether it is a method of a value (not a function of torch, numpy or Python)."""
    if not isinstance(node, ast.Call):
        return "", False
    if isinstance(node.func, ast.Name):
        return node.func.id, False
    if not isinstance(node.func, ast.Attribute):
        return "", False
    of = node.func.value
    while isinstance(of, ast.Attribute):
        of = of.value
    return node.func.attr, not (isinstance(of, ast.Name) and of.id in ("torch", "np", "math", "nn", "F"))


# Operators ------------------------------------------------------------------------------------------------------------

AXES = {"dim", "dims", "axis"}
REDUCING = {
    "sum", "mean", "std", "var", "prod", "any", "all", "max", "min", "amax", "amin", "argmax", "argmin", "flatten",
}  # fmt: skip
ALONG = REDUCING | {
    "softmax", "log_softmax", "logsumexp", "cumsum", "cumprod", "cummax", "unsqueeze", "squeeze", "gather", "scatter",
    "scatter_reduce", "unflatten", "flip", "sort", "argsort", "stack", "cat", "diff",
}  # fmt: skip
REDUCTIONS = {
    "mean": "sum", "sum": "mean", "max": "min", "min": "max", "amax": "amin", "amin": "amax", "argmax": "argmin",
    "argmin": "argmax", "any": "all", "all": "any", "prod": "sum", "std": "var", "var": "std", "logsumexp": "amax",
    "cumsum": "cumprod", "cummax": "cummin", "maximum": "minimum", "minimum": "maximum", "median": "mean",
}  # fmt: skip
ALIKE = {
    "softmax": "log_softmax", "log_softmax": "softmax", "logsigmoid": "sigmoid", "square": "abs", "abs": "square",
    "clamp_min": "clamp_max", "clamp_max": "clamp_min", "zeros": "ones", "zeros_like": "ones_like", "floor": "ceil",
    "ones": "zeros", "ones_like": "zeros_like", "cos": "sin", "sin": "cos", "relu": "abs",
}  # fmt: skip
CASTS = {
    "to", "float", "double", "long", "int", "bool", "item", "tolist", "numpy", "astype", "contiguous", "expand_as",
    "expand", "list", "tuple", "tensor", "from_numpy", "str", "detach", "new_zeros",
    "values", "len", "range", "enumerate", "zip", "stack", "cat", "append",
}  # fmt: skip


def _axes_of(node: ast.AST) -> Iterator[tuple[str, int, ast.expr]]:
    """Where a call is told an axis: "args" or "keywords", the place there, and the axis."""
    name, method = _called(node)
    if name in ALONG and len(node.args) > (not method):
        yield "args", int(not method), node.args[int(not method)]
    for place, keyword in enumerate(node.keywords if name else []):
        if keyword.arg in AXES:
            yield "keywords", place, keyword.value


def _with(node: ast.Call, where: str, place: int, new: ast.expr | None) -> ast.Call:
    parts = list(getattr(node, where))
    if new is None:
        del parts[place]
    else:
        parts[place] = ast.keyword(parts[place].arg, new) if where == "keywords" else new
    return _call(node, **{where: parts})


@operator("wrong axis")
def _axis(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    name, method = _called(node)
    for where, place, axis in _axes_of(node):
        value = _number(axis)
        if value is not None:
            other = {0: 1, -1: -2}.get(value, value - 1 if value > 0 else value + 1)
            yield _with(node, where, place, _written(other))
        if isinstance(axis, ast.Tuple) and len(axis.elts) > 1:
            for left_out in range(len(axis.elts)):
                yield _with(node, where, place, ast.Tuple(axis.elts[:left_out] + axis.elts[left_out + 1 :], ast.Load()))
        if name in REDUCING and (value is not None or isinstance(axis, ast.Tuple)):
            yield _with(node, where, place, None)
    if name == "permute" and len(node.args) > 1:
        yield _call(node, args=[*node.args[:-2], node.args[-1], node.args[-2]])
    if isinstance(node, ast.Attribute) and node.attr in ("T", "mT"):
        yield node.value
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
        parts = node.slice.elts
        for place, part in enumerate(parts):
            if isinstance(part, ast.Constant) and part.value is None:
                other, moved = place - 1 if place else 1, list(parts)
                moved[place], moved[other] = moved[other], moved[place]
                yield ast.Subscript(node.value, ast.Tuple(moved, ast.Load()), node.ctx)


@operator("wrong reduction")
def _reduction(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    name, _ = _called(node)
    for table in (REDUCTIONS, ALIKE):
        if name in table and isinstance(node.func, ast.Attribute):
            yield _call(node, func=ast.Attribute(node.func.value, table[name], ast.Load()))
        elif name in table and isinstance(node.func, ast.Name) and table is REDUCTIONS and name in ("max", "min"):
            yield _call(node, func=ast.Name(table[name], ast.Load()))


@operator("off by one")
def _off_by_one(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Subscript):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for place, part in enumerate(parts):
            for new in _shifted(part):
                slice = new if len(parts) == 1 else ast.Tuple([*parts[:place], new, *parts[place + 1 :]], ast.Load())
                yield ast.Subscript(node.value, slice, node.ctx)
    name, _ = _called(node)
    if name == "range":
        for by in (1, -1):
            yield _call(node, args=[*node.args[:-1], _moved(node.args[-1], by)])
        if len(node.args) == 2:
            yield _call(node, args=[_moved(node.args[0], 1), node.args[1]])
    if name == "len":
        yield _moved(node, -1)


def _shifted(index: ast.expr) -> Iterator[ast.expr]:
    value = _number(index)
    if value is not None:
        yield from (_written(value + 1), _written(value - 1))
    if isinstance(index, ast.Slice):
        lower, upper, step = index.lower, index.upper, index.step
        if lower is not None:
            yield ast.Slice(_moved(lower, 1), upper, step)
            if _number(lower) != 0:
                yield ast.Slice(None if _number(lower) == 1 else _moved(lower, -1), upper, step)
        if upper is not None:
            yield ast.Slice(lower, None if _number(upper) == -1 else _moved(upper, 1), step)
            yield ast.Slice(lower, _moved(upper, -1), step)
        if step is not None:
            yield ast.Slice(lower, upper, None)


def _moved(node: ast.expr, by: int) -> ast.expr:
    value = _number(node)
    if value is not None:
        return _written(value + by)
    return _binary(node, ast.Add() if by > 0 else ast.Sub(), ast.Constant(abs(by)))


@operator("sign")
def _sign(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    turned = {ast.Add: ast.Sub, ast.Sub: ast.Add}
    if isinstance(node, ast.BinOp) and type(node.op) in turned:
        yield _binary(node.left, turned[type(node.op)](), node.right)
        if isinstance(node.op, ast.Sub) and not _is_even(parent):
            yield _binary(node.right, ast.Sub(), node.left)
    elif isinstance(node, ast.AugAssign) and type(node.op) in turned:
        yield ast.AugAssign(node.target, turned[type(node.op)](), node.value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and not _is_axis(node, parent):
        yield node.operand


def _is_even(parent: ast.AST) -> bool:
    """Whether a value's sign is forgotten at once: its absolute value or its square is taken."""
    if isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Pow):
        return _number(parent.right) == 2
    return isinstance(parent, ast.Attribute) and parent.attr in ("abs", "square")


@operator("comparison")
def _comparison(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    others = {
        ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
        ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,),
        ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
    }  # fmt: skip
    if isinstance(node, ast.Compare):
        for place, op in enumerate(node.ops):
            for other in others[type(op)]:
                yield ast.Compare(node.left, [*node.ops[:place], other(), *node.ops[place + 1 :]], node.comparators)


@operator("branch")
def _branch(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.IfExp):
        yield from (node.body, node.orelse)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
        yield from node.values if len(node.values) == 2 else ()
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        yield _binary(node.left, ast.BitAnd() if isinstance(node.op, ast.BitOr) else ast.BitOr(), node.right)
        yield from (node.left, node.right)
    elif _called(node)[0] == "where" and len(node.args) == 3:
        yield _call(node, args=[node.args[0], node.args[2], node.args[1]])
    if isinstance(parent, ast.If) and node is parent.test:
        yield from (ast.Constant(True), ast.Constant(False))


@operator("arithmetic")
def _arithmetic(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    others = {
        ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
        ast.MatMult: ast.Mult,
    }  # fmt: skip
    if isinstance(node, ast.BinOp) and type(node.op) in others:
        yield _binary(node.left, others[type(node.op)](), node.right)
        if isinstance(node.op, ast.Div):
            yield _binary(node.right, ast.Div(), node.left)
    elif isinstance(node, ast.AugAssign) and type(node.op) in others:
        yield ast.AugAssign(node.target, others[type(node.op)](), node.value)


@operator("constant")
def _constant(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    if isinstance(parent, ast.keyword) and parent.arg == "strict":
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    negative = isinstance(parent, ast.UnaryOp) and isinstance(parent.op, ast.USub)  # a number with its sign is one
    if negative or _is_axis(node, parent) or isinstance(parent, ast.Subscript | ast.Slice):
        return
    value = _number(node)
    if isinstance(value, int):
        yield from (_written(value + 1), _written(value - 1))
    elif value is not None:
        yield _written(value + 1)
        if abs(value) >= 0.01:
            yield _written(value * 2)


def _is_axis(node: ast.AST, parent: ast.AST) -> bool:
    """Whether a number says an axis, and is the axis operator's business."""
    if isinstance(parent, ast.keyword):
        return parent.arg in AXES
    name, _ = _called(parent)
    return name == "permute" or any(axis is node for _, _, axis in _axes_of(parent))


@operator("dropped term")
def _dropped(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.Pow):
        yield node.left
        if isinstance(node.op, ast.Add | ast.Mult):
            yield node.right
        elif isinstance(node.op, ast.Sub):
            yield ast.UnaryOp(ast.USub(), node.right)
    name, method = _called(node)
    if name and name not in CASTS:
        if method:
            yield node.func.value
        elif len(node.args) == 1 and not isinstance(node.args[0], ast.GeneratorExp | ast.ListComp):
            yield node.args[0]
        for place, keyword in enumerate(node.keywords):
            if keyword.arg not in ("strict", "dtype", "device", *AXES):
                yield _with(node, "keywords", place, None)
    reads = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)}
    again = isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in reads
    if again or isinstance(node, ast.AugAssign | ast.Expr):
        yield ast.Pass()


# Calls and attributes through which no gradient passes; and calls whose other arguments give a form and no values.
BLIND = {
    "len", "zeros_like", "ones_like", "full_like", "argmax", "argmin", "argsort", "searchsorted", "unique", "tolist",
    "item", "any", "all", "isfinite", "shape", "ndim", "dtype", "dim", "detach", "new_zeros", "new_full",
}  # fmt: skip
FORMS = {"to", "expand_as"}


def _detached(function: ast.FunctionDef) -> Operator:
    """The operator for a function: it cuts off its floating arguments, and what it returns, if so declared."""
    given = [arg for arg in ast.walk(function.args) if isinstance(arg, ast.arg)]
    tensors = {arg.arg for arg in given if _is_tensor(arg.annotation)} if _is_tensor(function.returns) else set()
    blind: set[int] = set()
    for node in ast.walk(function):
        name = node.attr if isinstance(node, ast.Attribute) else _called(node)[0]
        below = [node] if isinstance(node, ast.Compare) or name in BLIND else node.args if name in FORMS and isinstance(
            node, ast.Call) else []  # fmt: skip
        blind |= {id(part) for top in below for part in ast.walk(top)}

    def cut(node: ast.expr) -> ast.expr:
        return ast.Call(ast.Attribute(node, "detach", ast.Load()), [], [])

    def change(node: ast.AST, parent: ast.AST) -> Iterator[ast.AST]:
        name, _ = _called(node)
        if name == "detach":
            yield node.func.value
        elif name in ("no_grad", "enable_grad"):
            other = "enable_grad" if name == "no_grad" else "no_grad"
            yield _call(node, func=ast.Attribute(node.func.value, other, ast.Load()))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in tensors:
            if id(node) not in blind:
                yield cut(node)
        if isinstance(node, ast.Return) and _is_tensor(function.returns):
            if isinstance(node.value, ast.Tuple):
                parts = node.value.elts
                for place, part in enumerate(parts):
                    yield ast.Return(ast.Tuple([*parts[:place], cut(part), *parts[place + 1 :]], ast.Load()))
            elif node.value is not None and _called(node.value)[0] != "detach":
                yield ast.Return(cut(node.value))

    return change
