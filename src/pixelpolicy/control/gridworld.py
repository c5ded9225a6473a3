"""A world of cells with walls, prizes and slippery ground, as a table: small enough to plan in, and to draw."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch

from pixelpolicy.control.mdp import MDP
from pixelpolicy.errors import ControlError, RewardError

MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))  # left, down, right, up, as (row, column); FrozenLake's order
Cell = tuple[int, int]


class Gridworld:
    """Cells are ``(row, column)`` from the top left, states are cells numbered row by row: ``row * width + column``.

    A prize is earned on entering its cell, and ends the episode. With probability ``slip`` a move goes to one of the
    two sides instead, half each. Who runs into a wall or the edge stays. Walls are states too, terminal and worth 0.
    Raises `ControlError` for cells off the grid, a prize in a wall, a slip outside [0, 1] or a grid that is all wall,
    and `RewardError` for a prize that is not finite.
    """

    def __init__(
        self, walls: Iterable[Cell], prizes: Mapping[Cell, float], slip: float = 0.0, width: int = 4, height: int = 3
    ):
        self.walls = frozenset((int(row), int(column)) for row, column in walls)
        self.prizes = {(int(row), int(column)): float(prize) for (row, column), prize in prizes.items()}
        self.slip, self.width, self.height = float(slip), int(width), int(height)
        self._check()

    def state(self, cell: Cell) -> int:
        """The number of a cell."""
        return cell[0] * self.width + cell[1]

    def cells(self) -> list[Cell]:
        """All cells by their number."""
        return [(row, column) for row in range(self.height) for column in range(self.width)]

    def after(self, cell: Cell, move: int) -> Cell:
        """Where a move that does not slip leads."""
        row, column = cell[0] + MOVES[move][0], cell[1] + MOVES[move][1]
        free = 0 <= row < self.height and 0 <= column < self.width and (row, column) not in self.walls
        return (row, column) if free else cell

    def mdp(self) -> MDP:
        """The table: as many states as cells, four actions (0 left, 1 down, 2 right, 3 up)."""
        states = self.width * self.height
        transitions, rewards = torch.zeros(states, 4, states).double(), torch.zeros(states, 4).double()
        terminal = torch.zeros(states, dtype=torch.bool)
        for cell in self.cells():
            state = self.state(cell)
            terminal[state] = cell in self.walls or cell in self.prizes
            for action in range(4):
                for turn, chance in ((0, 1 - self.slip), (1, self.slip / 2), (3, self.slip / 2)):
                    following = self.after(cell, (action + turn) % 4)
                    transitions[state, action, self.state(following)] += chance
                    rewards[state, action] += chance * self.prizes.get(following, 0.0)
        return MDP(transitions, rewards, terminal)

    def _check(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ControlError(f"a grid of {self.width} by {self.height} has no cells; give a width and a height")
        if not 0 <= self.slip <= 1:
            raise ControlError(f"slip is {self.slip}; give the probability of slipping, from 0 to 1")
        inside = set(self.cells())
        for cell in (*self.walls, *self.prizes):
            if cell not in inside:
                raise ControlError(
                    f"cell {cell} is off the grid; rows go from 0 to {self.height - 1}, columns to {self.width - 1}"
                )
        for cell, prize in self.prizes.items():
            if cell in self.walls:
                raise ControlError(f"cell {cell} is a wall and has a prize; nobody can ever enter it")
            if not math.isfinite(prize):
                raise RewardError(f"the prize in cell {cell} is {prize}; give a finite number")
        if self.walls == inside:
            raise ControlError("every cell is a wall; leave one free to live in")
