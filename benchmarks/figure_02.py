"""The figures of chapter 02: `python benchmarks/figure_02.py`. Tables and eight weights; it takes a minute."""

import torch
from matplotlib.figure import Figure
from torch import Tensor

from pixelpolicy import viz
from pixelpolicy.control import td
from pixelpolicy.course.files import course_root
from pixelpolicy.viz.figures import OTHERS

PLACES = 7


def cliff(seed: int = 0, episodes: int = 500) -> viz.Picture:
    """The paths of Q-learning and SARSA, and what each earns while it explores."""
    config, name = td.TableConfig(episodes=episodes, step_size=0.1), "CliffWalking-v1"
    learnt = {"Q-learning": td.q_learning(name, config, seed=seed), "SARSA": td.sarsa(name, config, seed=seed)}
    figure = Figure(figsize=(9.5, 3.2))
    map_axis, axis = figure.subplots(1, 2, width_ratios=(1.5, 1))
    figure.subplots_adjust(wspace=0.3)
    map_axis.imshow([[1.0] * 12] * 3 + [[1.0] + [0.45] * 10 + [1.0]], cmap="gray", vmin=0, vmax=1)
    map_axis.set(xticks=[], yticks=[])
    map_axis.text(5.5, 3, "cliff: -100", ha="center", va="center", color="white")
    for place, label in ((0, "start"), (11, "goal")):
        map_axis.text(place, 3.35, label, ha="center", va="center", fontsize=8)
    for number, (label, result) in enumerate(learnt.items()):
        path, total = td.greedy_path(result.q, name)
        style = {"color": OTHERS[number], "linestyle": "-" if number == 0 else "--", "label": label}
        shift = 0.08 * number
        map_axis.plot([s % 12 + shift for s in path], [s // 12 - shift for s in path], linewidth=3, **style)
        axis.plot(range(30, episodes + 1), result.returns.unfold(0, 30, 1).mean(1), **style)
        print(f"{label}: greedy {total}, last hundred episodes {result.returns[-100:].mean():.1f}")
    axis.set(xlabel="episode", ylabel="return while exploring", ylim=(-150, 0))
    axis.legend(frameon=False, fontsize=8)
    return viz.picture(figure, alt="Two paths past a cliff, and the return of each method while it explores.")


def walk(stream: torch.Generator) -> tuple[Tensor, Tensor]:
    place, visited = PLACES // 2, []
    while 0 <= place < PLACES:
        visited.append(place)
        place += 2 * int(torch.randint(2, (), generator=stream)) - 1
    rewards = torch.zeros(len(visited)).double()
    rewards[-1] = float(place == PLACES)
    return torch.tensor(visited), rewards


def repeated_td(walks: list, sweeps: int = 150) -> Tensor:
    """TD(0) over the same walks until its values rest: each becomes the mean of its targets."""
    states = torch.cat([visited for visited, _ in walks])
    rewards = torch.cat([earned for _, earned in walks])
    following = torch.cat([visited.roll(-1) for visited, _ in walks])
    over = torch.cat([torch.arange(len(visited)) == len(visited) - 1 for visited, _ in walks])
    visits, values = torch.bincount(states, minlength=PLACES).clamp(min=1), torch.zeros(PLACES).double()
    for _ in range(sweeps):
        targets = td.td_target(rewards, values[following], over, torch.zeros_like(over), 1.0)
        values = torch.zeros(PLACES).double().index_add(0, states, targets) / visits
    return values


def waiting(counts: tuple[int, ...] = (4, 8, 16, 32, 64), runs: int = 100) -> viz.Picture:
    """Error of Monte Carlo and of TD(0) on the same walks."""
    stream, truth = torch.Generator().manual_seed(0), torch.arange(1, PLACES + 1) / (PLACES + 1)
    sets = [[walk(stream) for _ in range(counts[-1])] for _ in range(runs)]
    lines = {"Monte Carlo": lambda walks: td.monte_carlo(walks, PLACES, 1.0), "TD(0)": repeated_td}
    found = {}
    for label, estimate in lines.items():
        errors = [torch.stack([estimate(walks[:count]) for walks in sets]) - truth for count in counts]
        found[label] = (counts, [error.square().mean().sqrt().item() for error in errors])
        print(label, [round(error, 3) for error in found[label][1]])
    return viz.curves(
        found, xlabel="walks", ylabel="error of the values", alt="Two falling lines; that of TD(0) lies lower."
    )


def triad(steps: int = 3_000) -> viz.Picture:
    """Baird's star: all three ingredients, and each of them taken away."""
    star = torch.zeros(7, 8).double()
    star[:6, :6], star[:6, 7] = 2 * torch.eye(6), 1.0
    star[6, 6], star[6, 7] = 1.0, 2.0
    first = torch.tensor([1, 1, 1, 1, 1, 1, 10, 1]).double()
    runs = {
        "all three": (star, first, True, True, 0.03),
        "on-policy": (star, first, False, True, 0.03),
        "no bootstrapping": (star, first, True, False, 0.03),
        "a table": (torch.eye(7).double(), star @ first, True, True, 0.2),
    }
    figure = Figure(figsize=(6.4, 3.4))
    axis = figure.subplots()
    for number, (label, (features, weights, off_policy, bootstrap, step_size)) in enumerate(runs.items()):
        stream, state, errors = torch.Generator().manual_seed(0), 0, []
        for _ in range(steps):
            following = int(torch.randint(7, (), generator=stream))
            ratio = 7.0 * (following == 6) if off_policy else 1.0
            ahead = features[following] if bootstrap else torch.zeros_like(weights)
            error = 0.99 * weights @ ahead - weights @ features[state]
            weights = weights + step_size * ratio * error * features[state]
            state = following
            errors.append((features @ weights).square().mean().sqrt().item())
        axis.semilogy(errors, color=OTHERS[number], linestyle=("-", "--", ":", "-.")[number], label=label)
        print(f"{label}: {errors[0]:.2f} -> {errors[-1]:.3g}")
    axis.set(xlabel="step", ylabel="error of the values", ylim=(1e-6, 1e12))
    axis.legend(frameon=False, fontsize=8, ncols=2)
    return viz.picture(figure, alt="Four lines on a logarithmic axis; one rises without end, the others do not.")


def main() -> None:
    folder = course_root() / "chapters" / "figures"
    folder.mkdir(exist_ok=True)
    for name, make in (("cliff", cliff), ("waiting", waiting), ("triad", triad)):
        picture = make()
        picture.save(folder / f"02-{name}.png")
        print(f"02-{name}.png: {picture.alt}")


if __name__ == "__main__":
    main()
