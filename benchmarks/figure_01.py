"""The figures of chapter 01: `python benchmarks/figure_01.py`. Nothing is trained for them."""

import gymnasium
import torch
from matplotlib.figure import Figure

from pixelpolicy import viz
from pixelpolicy.control.planning import (
    MDP,
    Gridworld,
    action_values,
    greedy_actions,
    mdp_of,
    policy_iteration,
    value_iteration,
)
from pixelpolicy.course.files import course_root

WORLD = Gridworld(
    walls=[(1, 3), (1, 4), (1, 5), (3, 3), (3, 4)],
    prizes={(2, 0): 1.0, (2, 8): 4.0, (0, 5): -2.0, (3, 6): -2.0},
    slip=0.1,
    width=9,
    height=4,
)
PRIZES = {cell: f"{prize:+g}" for cell, prize in WORLD.prizes.items()}


def _arrows(mdp: MDP, values: torch.Tensor, discount: float, shape: tuple[int, int]) -> torch.Tensor:
    return greedy_actions(mdp, values, discount).view(*shape, 4)


def lake(discount: float = 0.99) -> viz.Picture:
    """The best plan for the large lake, slippery and dry."""
    values, arrows, marks = {}, {}, {}
    for name, slippery in (("dry ground", False), ("slippery ice", True)):
        env = gymnasium.make("FrozenLake-v1", map_name="8x8", is_slippery=slippery)
        mdp = mdp_of(env)
        plan = value_iteration(mdp, discount)
        values[name], arrows[name] = plan.values.view(8, 8), _arrows(mdp, plan.values, discount, (8, 8))
        for cell in mdp.terminal.nonzero().flatten().tolist():
            marks[divmod(cell, 8)] = "prize" if cell == 63 else "hole"
        print(f"{name}: worth of the start {plan.values[0]:.3f}, {plan.sweeps} sweeps")
    return viz.grids(values, arrows=arrows, marks=marks, size=4.4, alt="Best values and moves on two lakes.")


def sweeps(discount: float = 0.95) -> viz.Picture:
    """Value iteration on the world of two prizes, from the first sweep to the last."""
    mdp, stages, arrows = WORLD.mdp(), {}, {}
    values = torch.zeros(mdp.states, dtype=torch.float64)
    for sweep in range(1, 41):
        values = action_values(mdp, values, discount).max(-1).values
        if sweep in (1, 2, 4, 6, 10, 40):
            name = f"sweep {sweep}"
            stages[name], arrows[name] = values.view(4, 9), _arrows(mdp, values, discount, (4, 9))
            arrows[name] &= (values.view(4, 9) != 0)[..., None]  # a cell that has heard of nothing has no best move
    return viz.grids(
        stages, arrows=arrows, marks=PRIZES, walls=WORLD.walls, columns=2, size=4.8, digits=0, alt="Six stages."
    )


def discounts() -> viz.Picture:
    """One world, three discounts."""
    mdp, plans, arrows = WORLD.mdp(), {}, {}
    for discount in (0.5, 0.8, 0.95):
        plan, name = value_iteration(mdp, discount), f"discount {discount}"
        plans[name], arrows[name] = plan.values.view(4, 9), _arrows(mdp, plan.values, discount, (4, 9))
    rounds = policy_iteration(mdp, 0.95).sweeps
    print(f"policy iteration: {rounds} rounds")
    return viz.grids(plans, arrows=arrows, marks=PRIZES, walls=WORLD.walls, columns=1, size=6.2, alt="Three plans.")


def errors() -> viz.Picture:
    """The error of value iteration, sweep by sweep, beside what the discount promises."""
    mdp, figure = mdp_of(gymnasium.make("FrozenLake-v1", map_name="8x8")), Figure(figsize=(6.4, 3.4))
    axis = figure.subplots()
    for colour, discount in zip(viz.figures.OTHERS, (0.8, 0.95, 0.99), strict=False):
        best = value_iteration(mdp, discount, tolerance=1e-13).values
        values, gaps = torch.zeros_like(best), []
        for _ in range(300):
            gaps.append((values - best).abs().max().item())
            values = action_values(mdp, values, discount).max(-1).values
        axis.semilogy(gaps, color=colour, label=f"discount {discount}")
        axis.semilogy([gaps[0] * discount**k for k in range(300)], "--", color=colour, linewidth=1)
    axis.set(xlabel="sweep", ylabel="largest error", ylim=(1e-10, 2))
    axis.legend(frameon=False, fontsize=8)
    return viz.picture(figure, alt="Three falling lines, each below its dashed bound.")


def main() -> None:
    folder = course_root() / "chapters" / "figures"
    folder.mkdir(exist_ok=True)
    for name, make in (("lake", lake), ("sweeps", sweeps), ("discounts", discounts), ("errors", errors)):
        picture = make()
        picture.save(folder / f"01-{name}.png")
        print(f"01-{name}.png: {picture.alt}")


if __name__ == "__main__":
    main()
