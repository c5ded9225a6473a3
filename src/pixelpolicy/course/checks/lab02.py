"""Checks of lab 02: values from experience, each piece against an independent formula."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.control", "pixelpolicy.finetune")


def _numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _gives(wrong: Callable, given: Callable[[], list[tuple]]) -> Callable[[Callable], bool]:
    """Whether a function gives the values of `wrong`; gradients, which an answer may cut by float(), do not matter."""

    def gives(student) -> bool:
        pairs = zip(given(), given(), strict=True)
        return all(torch.allclose(student(*own), wrong(*other)) for own, other in pairs)

    return gives


# 2.1 Monte Carlo ----------------------------------------------------------------------------------------------


def _episode(states: list[int], rewards: list[float]) -> tuple[Tensor, Tensor]:
    return torch.tensor(states), torch.tensor(rewards, dtype=torch.float64)


EPISODES = [
    ([_episode([0, 1, 2], [1.0, 2.0, 4.0])], 3, 1.0),
    ([_episode([0, 1, 2], [1.0, 2.0, 4.0]), _episode([1], [5.0])], 3, 0.5),
    ([_episode([2, 0, 2, 1], [1.0, -1.0, 3.0, 8.0]), _episode([0, 0], [2.0, 6.0])], 3, 0.9),
    ([_episode([3], [7.0])], 5, 0.9),
]


def _means(episodes: list, states: int, discount: float) -> Tensor:
    """Each return by its own sum, from the visit to the end."""
    found: list[list[Tensor]] = [[] for _ in range(states)]
    for visited, rewards in episodes:
        for t, state in enumerate(visited.tolist()):
            ahead = rewards[t:]
            found[state].append((ahead * discount ** torch.arange(len(ahead))).sum())
    return torch.stack([torch.stack(f).mean() if f else torch.zeros(()).double() for f in found])


def _mc_case(case: int) -> Callable:
    def holds(student) -> None:
        got = student(*EPISODES[case])
        same(torch.as_tensor(got).double(), _means(*EPISODES[case]), what="the values")

    return holds


def _mc(
    discount_of=lambda g: g,
    first_visit=False,
    mean=True,
    gather=lambda reward, after, g: reward + g * after,
    empty=0.0,
    order=-1,
    whole=False,
):
    def monte_carlo(episodes, states, discount):
        totals, visits = torch.zeros(states).double(), torch.zeros(states).double()
        for visited, rewards in episodes:
            after, returns = 0.0, []
            for reward in rewards.tolist()[::order]:
                after = gather(reward, after, discount_of(discount))
                returns.append(after)
            for t, (state, value) in enumerate(zip(visited.tolist(), returns[::order], strict=True)):
                if first_visit and state in visited.tolist()[:t]:
                    continue
                totals[state] += returns[-1] if whole else value
                visits[state] += 1
        means = totals / visits.clamp_min(1) if mean else totals
        return torch.where(visits > 0, means, torch.tensor(empty).double())

    return monte_carlo


MONTE_CARLO = Exercise(
    id="2.1",
    name="monte_carlo",
    points=2,
    reference=_mc(),
    forbidden=FORBIDDEN,
    probes=lambda: EPISODES,
    properties=[
        Property("without a discount, a return is the sum of all rewards to come", _mc_case(0)),
        Property("later rewards count less, and a value is the mean over episodes", _mc_case(1)),
        Property("every visit counts, also the second in an episode", _mc_case(2)),
        Property("a state that nobody visited has the value 0", _mc_case(3)),
    ],
    mistakes=[
        Mistake("no discount", "You never use the discount: G = reward + discount * G.", wrong=_mc(lambda g: 1.0)),
        Mistake(
            "discounted too early",
            "You discount the reward of the step itself. Only what comes after it is discounted.",
            wrong=_mc(gather=lambda reward, after, g: g * (reward + after)),
        ),
        Mistake(
            "first visits",
            "You count only the first visit in an episode. Here every visit counts, each with its own return.",
            wrong=_mc(first_visit=True),
        ),
        Mistake("sums", "You return sums of returns: divide by the number of visits.", wrong=_mc(mean=False)),
        Mistake(
            "from the start",
            "You add up from the first step on, so a state gets the rewards before it. Go through the steps backwards.",
            wrong=_mc(order=1),
        ),
        Mistake(
            "one return for all",
            "Every state of an episode gets the return of its first step. A state earns what comes after its visit.",
            wrong=_mc(whole=True),
        ),
        Mistake(
            "nan",
            "A state without a visit comes out as nan, 0 divided by 0: leave its value at 0.",
            wrong=_mc(empty=float("nan")),
        ),
    ],
)

# 2.2 The target of TD -----------------------------------------------------------------------------------------

NO, YES = torch.tensor([False] * 4), torch.tensor([True] * 4)
MIXED = torch.tensor([False, True, False, True]), torch.tensor([False, False, True, True])
TARGETS = [
    (_numbers(0, 4), _numbers(1, 4), NO, NO, 0.9),
    (_numbers(2, 4), _numbers(3, 4), YES, NO, 0.9),
    (_numbers(4, 4), _numbers(5, 4), NO, YES, 0.8),
    (_numbers(6, 4), _numbers(7, 4), *MIXED, 1.0),
    (_numbers(8, 4), _numbers(9, 4), *MIXED, 0.0),
]


def _target(rewards, following, terminated, truncated, discount) -> Tensor:
    rows = zip(rewards, following, terminated.tolist(), strict=True)
    return torch.stack([r if over else r + discount * v for r, v, over in rows])


def _target_cases(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            same(student(*TARGETS[case]), _target(*TARGETS[case]), what="the targets")

    return holds


def _td(rule):
    return lambda rewards, values, over, clock, discount: rule(rewards, values, over, clock, discount)


TD_TARGET = Exercise(
    id="2.2",
    name="td_target",
    points=2,
    reference=_td(lambda r, v, over, clock, g: r + g * v * ~over),
    forbidden=FORBIDDEN,
    probes=lambda: TARGETS,
    properties=[
        Property("in mid-episode: the reward and the discounted value of what follows", _target_cases(0)),
        Property("where the world ended nothing follows", _target_cases(1)),
        Property("where only the clock ran out, the next state keeps its worth", _target_cases(2)),
        Property("a batch of all kinds, with discounts 1 and 0", _target_cases(3, 4)),
    ],
    mistakes=[
        Mistake(
            "truncation ends the world",
            "You treat the clock as an end. A truncated walk would have gone on: its next state keeps its value.",
            wrong=_td(lambda r, v, over, clock, g: r + g * v * ~(over | clock)),
        ),
        Mistake(
            "never ends",
            "After the end of the world nothing comes: where terminated is True the target is the reward alone.",
            wrong=_td(lambda r, v, over, clock, g: r + g * v),
        ),
        Mistake(
            "only truncation ends",
            "The two flags are exchanged: terminated cuts the future off, truncated does not.",
            wrong=_td(lambda r, v, over, clock, g: r + g * v * ~clock),
        ),
        Mistake(
            "no discount",
            "The value of the next state enters without its discount.",
            wrong=_td(lambda r, v, over, clock, g: r + v * ~over),
        ),
        Mistake(
            "reward discounted",
            "You discount the reward too. It comes now: only what follows is discounted.",
            wrong=_td(lambda r, v, over, clock, g: g * (r + v * ~over)),
        ),
        Mistake(
            "nothing at the end",
            "Your target is 0 where the world ended. The last reward was still earned.",
            wrong=_td(lambda r, v, over, clock, g: (r + g * v) * ~over),
        ),
    ],
)

# 2.3 Epsilon-greedy -------------------------------------------------------------------------------------------

VALUES = [
    (torch.tensor([[1.0, 3.0, 2.0], [5.0, -1.0, 0.0]]), 0.3),
    (torch.tensor([0.0, -2.0, 7.0, 1.0]), 0.1),
    (torch.tensor([[2.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]), 0.2),
    (torch.tensor([[1.0, 4.0], [9.0, 4.0]]), 0.0),
    (torch.tensor([[1.0, 4.0], [9.0, 4.0]]), 1.0),
    (torch.tensor([[-3.0, -1.0, -2.0], [-9.0, -8.0, -7.0]]), 0.5),
]


def _chances(values: Tensor, epsilon: float) -> Tensor:
    rows = []
    for row in values.reshape(-1, values.shape[-1]).tolist():
        best = [value == max(row) for value in row]
        rows.append([epsilon / len(row) + (1 - epsilon) * b / sum(best) for b in best])
    return torch.tensor(rows).reshape(values.shape)


def _chance_cases(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            same(student(*VALUES[case]), _chances(*VALUES[case]), what="the probabilities")

    return holds


def _greedy(best=lambda v: v == v.amax(-1, keepdim=True), mix=None, share=True):
    mix = mix or (lambda epsilon, greedy, count: epsilon / count + (1 - epsilon) * greedy)

    def epsilon_greedy(values, epsilon):
        greedy = best(values).to(values.dtype)
        greedy = greedy / greedy.sum(-1, keepdim=True) if share else greedy
        return mix(epsilon, greedy, values.shape[-1])

    return epsilon_greedy


def _first_best(values: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(values.argmax(-1), values.shape[-1])


EPSILON_GREEDY = Exercise(
    id="2.3",
    name="epsilon_greedy",
    points=2,
    reference=_greedy(),
    forbidden=FORBIDDEN,
    probes=lambda: VALUES,
    properties=[
        Property("the best action of each row is likeliest; every action is possible", _chance_cases(0, 5)),
        Property("it works on one row alone, [actions]", _chance_cases(1)),
        Property("actions that tie share the probability of the best", _chance_cases(2)),
        Property("with epsilon 0 it is greedy, with epsilon 1 it is blind", _chance_cases(3, 4)),
    ],
    mistakes=[
        Mistake(
            "others only",
            "You give epsilon to the other actions only. A blind choice may hit the best one too: epsilon / n for all.",
            wrong=_greedy(mix=lambda e, greedy, n: (1 - e) * greedy + e * (1 - greedy) / (n - 1)),
        ),
        Mistake(
            "first of a tie",
            "Where actions tie, the first gets all. Share it: a table of zeros must not prefer action 0.",
            wrong=_greedy(best=_first_best),
        ),
        Mistake(
            "ties in full",
            "Where actions tie, each gets the whole share, and the sum exceeds 1. Divide by how many tie.",
            wrong=_greedy(share=False),
        ),
        Mistake(
            "exchanged",
            "Epsilon and 1 - epsilon are exchanged: epsilon is the share of blind choices.",
            wrong=_greedy(mix=lambda e, greedy, n: (1 - e) / n + e * greedy),
        ),
        Mistake(
            "greedy",
            "This is the greedy policy: without epsilon it never tries anything else.",
            wrong=_greedy(mix=lambda e, greedy, n: greedy),
        ),
        Mistake(
            "one maximum for all",
            "You look for the maximum of the whole tensor. Each row has its own: take it along the last dimension.",
            wrong=_greedy(best=lambda v: v == v.max(), share=False),
        ),
        Mistake(
            "epsilon undivided",
            "Each action gets all of epsilon; the sum exceeds 1. The blind share is divided among all actions.",
            wrong=_greedy(mix=lambda e, greedy, n: e + (1 - e) * greedy),
        ),
    ],
)

# 2.4 Q-learning -----------------------------------------------------------------------------------------------

TABLE = _numbers(20, 4, 3)


def _moves() -> list[tuple]:
    return [
        (TABLE.clone(), 0, 1, -1.0, 2, False, 0.5, 0.9),
        (TABLE.clone(), 3, 2, 4.0, 1, True, 0.25, 0.9),
        (TABLE.clone(), 1, 0, 2.0, 1, False, 1.0, 1.0),
        (TABLE.clone(), 2, 2, -100.0, 0, False, 0.1, 0.0),
        (TABLE.clone() - 5, 0, 0, -1.0, 3, False, 0.5, 1.0),
    ]


def _q_entry(q, state, action, reward, following, terminated, step_size, discount, worth=None) -> Tensor:
    """The mixture of old and new, entry by entry."""
    worth = max(q[following].tolist()) if worth is None else worth
    new = reward + (0.0 if terminated else discount * worth)
    rows = [[float(x) for x in row] for row in q]
    rows[state][action] = (1 - step_size) * rows[state][action] + step_size * new
    return torch.tensor(rows, dtype=q.dtype)


def _q_cases(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            got = student(*_moves()[case])
            if got is None:
                raise Mismatch("came out  None\nexpected  the table after the step: return it")
            same(got, _q_entry(*_moves()[case]), what="the table")

    return holds


def _learn(
    worth=lambda q, row, following: row.max(),
    alive=lambda terminated: 1.0 - float(terminated),
    step=lambda old, target, a: old + a * (target - old),
    where=lambda state, action: (state, action),
    discounted=lambda g: g,
):
    def update(q, state, action, reward, next_state, terminated, step_size, discount):
        q = q.clone()
        target = reward + discounted(discount) * alive(terminated) * worth(q, q[next_state], q[state])
        place = where(state, action)
        q[place] = step(q[place], target, step_size)
        return q

    return update


Q_LEARNING = Exercise(
    id="2.4",
    name="q_learning_update",
    points=3,
    reference=_learn(),
    forbidden=FORBIDDEN,
    probes=_moves,
    properties=[
        Property("one step: the entry moves towards reward plus discounted best of the next state", _q_cases(0, 4)),
        Property("a terminal step moves towards its reward alone", _q_cases(1)),
        Property("with step size 1 the entry is the target", _q_cases(2)),
        Property("with discount 0 only the reward counts", _q_cases(3)),
    ],
    mistakes=[
        Mistake(
            "bootstraps at the end",
            "After a terminal step nothing comes: its target is the reward alone.",
            when=_gives(_learn(alive=lambda terminated: 1.0), _moves),
        ),
        Mistake(
            "the old state's best",
            "You take the best of the state that was left. What follows begins at the next state.",
            when=_gives(_learn(worth=lambda q, row, before: before.max()), _moves),
        ),
        Mistake(
            "mean",
            "You average over the next actions. Q-learning asks for the best of them.",
            when=_gives(_learn(worth=lambda q, row, before: row.mean()), _moves),
        ),
        Mistake(
            "number of the best",
            "You add the number of the best action, argmax, where its value is wanted: max.",
            when=_gives(_learn(worth=lambda q, row, before: row.argmax()), _moves),
        ),
        Mistake(
            "best of the table",
            "You take the largest entry of the whole table. Only the next state's row matters.",
            when=_gives(_learn(worth=lambda q, row, before: q.max()), _moves),
        ),
        Mistake(
            "adds the target",
            "You add the target to what was there. The entry moves by the difference: target minus old value.",
            when=_gives(_learn(step=lambda old, target, a: old + a * target), _moves),
        ),
        Mistake(
            "no step size",
            "The old value is replaced at once. It moves only a part of the way: step_size.",
            when=_gives(_learn(step=lambda old, target, a: target), _moves),
        ),
        Mistake(
            "whole row",
            "You change every action of the state. Only the action that was taken has learnt something.",
            when=_gives(_learn(where=lambda state, action: state), _moves),
        ),
        Mistake(
            "no discount",
            "What comes after this step is discounted, and here it is not.",
            when=_gives(_learn(discounted=lambda g: 1.0), _moves),
        ),
    ],
)

# 2.5 SARSA ----------------------------------------------------------------------------------------------------


def _sarsa_moves() -> list[tuple]:
    chosen = (0, 1, 2, 2, 1)
    return [(*move[:5], chosen[i], *move[5:]) for i, move in enumerate(_moves())]


def _sarsa_entry(q, state, action, reward, following, chosen, *rest) -> Tensor:
    return _q_entry(q, state, action, reward, following, *rest, worth=q[following].tolist()[chosen])


def _sarsa_cases(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            got = student(*_sarsa_moves()[case])
            if got is None:
                raise Mismatch("came out  None\nexpected  the table after the step: return it")
            same(got, _sarsa_entry(*_sarsa_moves()[case]), what="the table")

    return holds


def _follow(worth=lambda q, s, a, n, m: q[n, m], alive=lambda over: 1.0 - float(over), back=False, step=None):
    step = step or (lambda old, target, a: old + a * (target - old))

    def update(q, state, action, reward, next_state, next_action, terminated, step_size, discount):
        q = q.clone()
        target = reward + discount * alive(terminated) * worth(q, state, action, next_state, next_action)
        place = (next_state, next_action) if back else (state, action)
        q[place] = step(q[place], target, step_size)
        return q

    return update


SARSA = Exercise(
    id="2.5",
    name="sarsa_update",
    points=1,
    reference=_follow(),
    forbidden=FORBIDDEN,
    probes=_sarsa_moves,
    properties=[
        Property("one step: towards reward plus the discounted value of the next action taken", _sarsa_cases(0, 4)),
        Property("a terminal step moves towards its reward alone", _sarsa_cases(1)),
        Property("with step size 1 the entry is the target", _sarsa_cases(2)),
        Property("with discount 0 only the reward counts", _sarsa_cases(3)),
    ],
    mistakes=[
        Mistake(
            "Q-learning",
            "This is Q-learning: it takes the best next action. SARSA takes the one that was really chosen.",
            when=_gives(_follow(worth=lambda q, s, a, n, m: q[n].max()), _sarsa_moves),
        ),
        Mistake(
            "bootstraps at the end",
            "After a terminal step there is no next action: its target is the reward alone.",
            when=_gives(_follow(alive=lambda over: 1.0), _sarsa_moves),
        ),
        Mistake(
            "old state, new action",
            "You look up the next action at the state that was left. It is taken in next_state.",
            when=_gives(_follow(worth=lambda q, s, a, n, m: q[s, m]), _sarsa_moves),
        ),
        Mistake(
            "new state, old action",
            "You look up the old action at the next state. The next one has its own name: next_action.",
            when=_gives(_follow(worth=lambda q, s, a, n, m: q[n, a]), _sarsa_moves),
        ),
        Mistake(
            "changes the next entry",
            "You change the entry of the next pair. It is the pair (state, action) that has learnt something.",
            when=_gives(_follow(back=True), _sarsa_moves),
        ),
        Mistake(
            "adds the target",
            "You add the target to what was there. The entry moves by the difference: target minus old value.",
            when=_gives(_follow(step=lambda old, target, a: old + a * target), _sarsa_moves),
        ),
    ],
)

# 2.6 Linear TD off the policy ---------------------------------------------------------------------------------

LINEAR = [
    (_numbers(30, 5), _numbers(31, 5), _numbers(32, 5), 1.5, 1.0, 0.1, 0.9),
    (_numbers(33, 3), _numbers(34, 3), _numbers(35, 3), -2.0, 7.0, 0.01, 0.99),
    (_numbers(36, 4), _numbers(37, 4), _numbers(38, 4), 1.0, 0.0, 0.5, 0.9),
    (_numbers(39, 4), _numbers(40, 4), torch.zeros(4).double(), 3.0, 0.5, 0.2, 1.0),
]


def _linear_moves() -> list[tuple]:
    return [tuple(x.clone() if isinstance(x, Tensor) else x for x in case) for case in LINEAR]


def _linear(weights, features, following, reward, ratio, step_size, discount) -> Tensor:
    """Weight by weight."""
    pairs = list(zip(weights.tolist(), features.tolist(), following.tolist(), strict=True))
    error = reward + sum(discount * w * n - w * f for w, f, n in pairs)
    return torch.tensor([w + step_size * ratio * error * f for w, f, _ in pairs], dtype=weights.dtype)


def _linear_cases(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            given = [x.clone() if isinstance(x, Tensor) else x for x in LINEAR[case]]
            same(student(*given), _linear(*LINEAR[case]), what="the weights")

    return holds


def _linear_table(student) -> None:
    """With one feature a state it is TD(0) on a table."""
    eye, values = torch.eye(3).double(), _numbers(41, 3)
    want = values.clone()
    want[1] += 0.3 * (2.0 + 0.9 * values[2] - values[1])
    same(student(values.clone(), eye[1], eye[2], 2.0, 1.0, 0.3, 0.9), want, what="the weights, one a state")


def _semi(
    direction=lambda f, n, g: f, weigh=lambda ratio: ratio, sign=1.0, discounted=lambda g: g, error=None, keep=True
):
    error = error or (lambda w, f, n, r, g: r + g * w @ n - w @ f)

    def update(weights, features, next_features, reward, ratio, step_size, discount):
        wrong_by = error(weights, features, next_features, reward, discounted(discount))
        change = sign * step_size * weigh(ratio) * wrong_by * direction(features, next_features, discount)
        return weights + change if keep else change

    return update


def _half_weighed(weights, features, next_features, reward, ratio, step_size, discount):
    target = ratio * (reward + discount * weights @ next_features)
    return weights + step_size * (target - weights @ features) * features


LINEAR_TD = Exercise(
    id="2.6",
    name="linear_td_update",
    points=3,
    reference=_semi(),
    forbidden=FORBIDDEN,
    probes=_linear_moves,
    properties=[
        Property("weights move along the features of the state that was left, by the error", _linear_cases(0)),
        Property("what the target policy would do more often counts more", _linear_cases(1)),
        Property("what it would never do changes nothing", _linear_cases(2)),
        Property("a next state without features is worth nothing", _linear_cases(3)),
        Property("with one feature a state it is TD(0) on a table", _linear_table),
    ],
    mistakes=[
        Mistake(
            "full gradient",
            "You follow the gradient of the next value too. TD takes its target as a number: only features move.",
            when=_gives(_semi(direction=lambda f, n, g: f - g * n), _linear_moves),
        ),
        Mistake(
            "no ratio",
            "The ratio is missing: this learns about the policy that played, not about the one you ask for.",
            when=_gives(_semi(weigh=lambda ratio: 1.0), _linear_moves),
        ),
        Mistake(
            "wrong sign",
            "The weights move away from the target. A positive error must raise the value.",
            when=_gives(_semi(sign=-1.0), _linear_moves),
        ),
        Mistake(
            "next features",
            "You move along the features of the next state. It is the state that was left whose value was wrong.",
            when=_gives(_semi(direction=lambda f, n, g: n), _linear_moves),
        ),
        Mistake(
            "no discount",
            "The value of the next state enters without its discount.",
            when=_gives(_semi(discounted=lambda g: 1.0), _linear_moves),
        ),
        Mistake(
            "ratio on the target",
            "You weigh the target alone. The ratio weighs the whole error: what is never done must change nothing.",
            when=_gives(_half_weighed, _linear_moves),
        ),
        Mistake(
            "the change alone",
            "You return the change. Return the weights after it.",
            when=_gives(_semi(keep=False), _linear_moves),
        ),
    ],
)  # fmt: skip


# 2.7 The targets of DQN ---------------------------------------------------------------------------------------


def _steps() -> list[tuple]:
    discounts = torch.tensor([0.9, 0.9**5, 0.99, 0.5], dtype=torch.float64)
    return [
        (_numbers(50, 4), _numbers(51, 4, 3), _numbers(52, 4, 3), NO, torch.full((4,), 0.9).double()),
        (_numbers(53, 4), _numbers(54, 4, 2), _numbers(55, 4, 2), YES, torch.full((4,), 0.9).double()),
        (_numbers(56, 4), _numbers(57, 4, 2), _numbers(58, 4, 2), MIXED[0], discounts),
        (_numbers(59, 1), _numbers(60, 1, 4), _numbers(61, 1, 4), NO[:1], discounts[:1]),
    ]


def _double(returns, online, target, terminated, discounts) -> Tensor:
    wanted = []
    for row in range(len(returns)):
        options = online[row].tolist()
        worth = target[row, options.index(max(options))]
        wanted.append(returns[row] + (0.0 if terminated[row] else discounts[row] * worth))
    return torch.stack(wanted)


def _double_cases(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            same(student(*_steps()[case]), _double(*_steps()[case]), what="the targets")

    return holds


def _no_gradient(student) -> None:
    returns, online, target, *rest = _steps()[0]
    got = student(returns, online.requires_grad_(), target.requires_grad_(), *rest)
    if got.requires_grad:
        raise Mismatch("came out  targets with a gradient\nexpected  plain numbers")


def _judged(worth, alive=lambda over: (~over).double(), discounted=lambda g: g, detach=True):
    def dqn_targets(returns, next_online, next_target, terminated, discounts):
        targets = returns + discounted(discounts) * alive(terminated) * worth(next_online, next_target)
        return targets.detach() if detach else targets

    return dqn_targets


def _pick(chooser: Tensor, judge: Tensor) -> Tensor:
    return judge.gather(-1, chooser.argmax(-1, keepdim=True)).squeeze(-1)


DQN = Exercise(
    id="2.7",
    name="dqn_targets",
    points=3,
    reference=_judged(_pick),
    forbidden=FORBIDDEN,
    probes=_steps,
    properties=[
        Property("one network chooses the next action, the other judges it", _double_cases(0)),
        Property("where the world ended nothing follows", _double_cases(1)),
        Property("each step has its own discount", _double_cases(2)),
        Property("a batch of one stays a batch", _double_cases(3)),
        Property("a target is a number: no gradient", _no_gradient, "Call .detach() on what you return."),
    ],
    mistakes=[
        Mistake(
            "plain maximum",
            "You take the largest value of the target network, which favours its errors: let the online one choose.",
            wrong=_judged(lambda online, target: target.amax(-1)),
        ),
        Mistake(
            "roles exchanged",
            "The roles are exchanged: the online network chooses, the target network judges.",
            wrong=_judged(lambda online, target: _pick(target, online)),
        ),
        Mistake(
            "no target network",
            "The online network judges its own choice, and chases itself. Take the value from next_target.",
            wrong=_judged(lambda online, target: online.amax(-1)),
        ),
        Mistake(
            "never ends",
            "After the end of the world nothing comes: where terminated is True the target is the return alone.",
            wrong=_judged(_pick, alive=lambda over: 1.0),
        ),
        Mistake(
            "turned",
            "The mask is turned over: the future counts where terminated is False.",
            wrong=_judged(_pick, alive=lambda over: over.double()),
        ),
        Mistake(
            "no discount",
            "The value of the next state enters without its discount.",
            wrong=_judged(_pick, discounted=lambda g: 1.0),
        ),
        Mistake(
            "a square",
            "The batch came out as a square: [batch, 1] met [batch]. Squeeze the last dimension after gather.",
            when=lambda f: f(*_steps()[0]).shape == (4, 4),
        ),
    ],
)

EXERCISES = [MONTE_CARLO, TD_TARGET, EPSILON_GREEDY, Q_LEARNING, SARSA, LINEAR_TD, DQN]
