"""Checks of lab 01: planning, each piece against closed forms, linear solves or all policies there are."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from pixelpolicy.course.comparing import Mismatch, same, same_gradient
from pixelpolicy.course.exercises import Exercise, Mistake, Property

FORBIDDEN = ("pixelpolicy.rl", "pixelpolicy.control")


def _tensor(*numbers) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _table(seed: int, states: int = 5, actions: int = 3, shift: float = 0.0) -> tuple[Tensor, Tensor]:
    """Random chances, uneven ones, and random rewards."""
    stream = torch.Generator().manual_seed(seed)
    chances = torch.rand(states, actions, states, generator=stream, dtype=torch.float64) ** 3
    rewards = torch.randn(states, actions, generator=stream, dtype=torch.float64) + shift
    return chances / chances.sum(-1, keepdim=True), rewards


def _policy(seed: int, states: int = 5, actions: int = 3) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(states, actions, generator=stream, dtype=torch.float64)).softmax(-1)


def _corridor(length: int) -> tuple[Tensor, Tensor]:
    """Left and right in a corridor; entering the last cell earns 1 and ends it."""
    chances, rewards = torch.zeros(length, 2, length).double(), torch.zeros(length, 2).double()
    for cell in range(length - 1):
        chances[cell, 0, max(cell - 1, 0)] = chances[cell, 1, cell + 1] = 1
    chances[-1, :, -1], rewards[length - 2, 1] = 1, 1
    return chances, rewards


def _within(got: Tensor, truth: Tensor, tolerance: float, what: str) -> None:
    """Raise Mismatch unless all values are within the tolerance of the truth."""
    same(tuple(got.shape), tuple(truth.shape), what="the shape of the values")
    off = (got.detach() - truth).abs().max().item()
    if not off <= tolerance * (1 + 1e-6):
        raise Mismatch(f"{what}: came out  {off:.3g} from the truth\nexpected  {tolerance:g} at most")


# 1.1 The return -----------------------------------------------------------------------------------------------

EPISODES = [
    (_tensor(1.0, 2.0, 3.0), 0.5),
    (_tensor(0.0, 0.0, 0.0, 1.0), 0.9),
    (_tensor(-1.0), 0.3),
    (_tensor(2.0, -1.0, 0.5, 4.0, -3.0), 0.0),
    (_tensor(2.0, -1.0, 0.5, 4.0, -3.0), 1.0),
]


def _return(rewards: Tensor, discount: float) -> Tensor:
    """From behind."""
    total = torch.zeros((), dtype=rewards.dtype)
    for reward in rewards.flip(0):
        total = reward + discount * total
    return total


def _return_case(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            rewards, discount = EPISODES[case]
            same(student(rewards.clone(), discount), _return(rewards, discount), atol=1e-10)

    return holds


def _return_gradient(student) -> None:
    for rewards, discount in EPISODES:
        same_gradient(lambda r, d=discount: student(r, d), lambda r, d=discount: _return(r, d), (rewards,))


def _weighed(weights: Callable[[Tensor, float], Tensor]) -> Callable:
    return lambda rewards, discount: (weights(torch.arange(len(rewards)), discount) * rewards).sum()


RETURN = Exercise(
    id="1.1",
    name="discounted_return",
    points=1,
    reference=_weighed(lambda t, discount: discount**t),
    forbidden=FORBIDDEN,
    probes=lambda: [(rewards.clone(), discount) for rewards, discount in EPISODES],
    properties=[
        Property("1 + 0.5 * 2 + 0.25 * 3 = 2.75", _return_case(0)),
        Property("a prize after three steps of waiting counts the discount cubed", _return_case(1)),
        Property("an episode of one reward is worth that reward", _return_case(2)),
        Property("discount 0 sees the first reward only, discount 1 adds all up", _return_case(3, 4)),
        Property(
            "gradients reach the rewards", _return_gradient, "Keep tensors: .item() and float() cut the gradient."
        ),
    ],
    mistakes=[
        Mistake(
            "first one discounted",
            "You discount the first reward too. Its power is 0: nobody has waited yet.",
            wrong=_weighed(lambda t, discount: discount ** (t + 1)),
        ),
        Mistake(
            "no discount",
            "You add the rewards up as they are. Multiply reward t by discount ** t.",
            wrong=lambda rewards, discount: rewards.sum(),
        ),
        Mistake(
            "wrong end",
            "You discount from the wrong end: the last reward counts in full and the first one least. Turn it round.",
            wrong=lambda rewards, discount: _return(rewards.flip(0), discount),
        ),
        Mistake(
            "mean",
            "You average over the steps. A return is a sum: longer episodes may earn more.",
            wrong=lambda rewards, discount: _return(rewards, discount) / len(rewards),
        ),
        Mistake(
            "multiplied by t",
            "You multiply by t * discount. Waiting multiplies again and again: take the power discount ** t.",
            wrong=_weighed(lambda t, discount: discount * t),
        ),
        Mistake(
            "only once",
            "Every reward after the first is discounted once, however late it comes. Take discount ** t.",
            wrong=_weighed(lambda t, discount: torch.where(t > 0, discount, 1.0)),
        ),
        Mistake(
            "not added up",
            "You return the discounted rewards one by one. Add them up.",
            wrong=lambda rewards, discount: discount ** torch.arange(len(rewards)) * rewards,
        ),
    ],
)

# 1.2 One row of the table -------------------------------------------------------------------------------------

ROWS = [
    (torch.tensor([3, 7, 5, 1]), 2, 0.2, 9),  # in the open
    (torch.tensor([3, 7, 5, 1]), 0, 0.4, 9),
    (torch.tensor([3, 7, 5, 1]), 3, 0.5, 9),  # up: the sides go round the circle
    (torch.tensor([0, 3, 1, 0]), 0, 0.3, 9),  # in a corner two directions stay
    (torch.tensor([0, 0, 0, 0]), 1, 0.6, 4),  # walled in
    (torch.tensor([3, 7, 5, 1]), 1, 0.0, 9),
    (torch.tensor([3, 7, 5, 1]), 1, 1.0, 9),
]


def _row(landing: Tensor, action: int, slip: float, states: int) -> Tensor:
    """State by state: what of the move ends there."""
    shares = [0.0, slip / 2, 1 - slip, slip / 2]  # by the turn from two before the action on
    order = [(action - 2 + turn) % 4 for turn in range(4)]
    return _tensor(*[sum(s for k, s in zip(order, shares, strict=True) if int(landing[k]) == x) for x in range(states)])


def _row_case(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            landing, *given = ROWS[case]
            same(torch.as_tensor(student(landing.clone(), *given)).double(), _row(landing, *given), atol=1e-7)

    return holds


def _row_like(turns=(0, -1, 1), shares=lambda slip: (1 - slip, slip / 2, slip / 2), add=True, circle=True) -> Callable:
    def move_chances(landing, action, slip, states):
        chances = torch.zeros(states, dtype=torch.float64)
        for turn, share in zip(turns, shares(slip), strict=True):
            place = landing[(action + turn) % 4 if circle else action + turn]
            chances[place] = share + (chances[place] if add else 0)
        return chances

    return move_chances


ROW = Exercise(
    id="1.2",
    name="move_chances",
    points=2,
    reference=_row_like(),
    forbidden=FORBIDDEN,
    probes=lambda: [(landing.clone(), *rest) for landing, *rest in ROWS],
    properties=[
        Property("in the open: as meant, and half the slip to each side", _row_case(0, 1)),
        Property("the sides of up are left and right", _row_case(2)),
        Property("directions that end in the same cell add up", _row_case(3, 4)),
        Property("slip 0 always obeys, slip 1 never does", _row_case(5, 6)),
    ],
    mistakes=[
        Mistake(
            "overwrites",
            "Where two directions end in one cell, the second overwrites the first. Add with +=.",
            wrong=_row_like(add=False),
        ),
        Mistake(
            "sides first, overwritten",
            "Where two directions end in one cell, the later one overwrites the earlier. Add with +=.",
            wrong=_row_like(turns=(-1, 1, 0), shares=lambda slip: (slip / 2, slip / 2, 1 - slip), add=False),
        ),
        Mistake(
            "whole slip to each side",
            "The chances add up to more than 1: each side gets half of the slip.",
            wrong=_row_like(shares=lambda slip: (1 - slip, slip, slip)),
        ),
        Mistake(
            "turned round",
            "Slip and success are exchanged: the move goes as meant with probability 1 - slip.",
            wrong=_row_like(shares=lambda slip: (slip, (1 - slip) / 2, (1 - slip) / 2)),
        ),
        Mistake(
            "backwards too",
            "You share the slip among three directions. A move never slips backwards, only to its two sides.",
            wrong=_row_like(turns=(0, 1, 2, 3), shares=lambda slip: (1 - slip, slip / 3, slip / 3, slip / 3)),
        ),
        Mistake(
            "back and one side",
            "The sides of action a are a - 1 and a + 1. You take a + 2, which is the way back.",
            wrong=_row_like(turns=(0, 1, 2)),
        ),
        Mistake(
            "no circle",
            "Action 3 has no action 4 beside it: count round the circle with % 4.",
            wrong=_row_like(circle=False),
        ),
        Mistake(
            "one side only",
            "All the slip goes to one side. Half of it belongs to the other.",
            wrong=_row_like(turns=(0, 1), shares=lambda slip: (1 - slip, slip)),
        ),
    ],
)

# 1.3 One step ahead -------------------------------------------------------------------------------------------

AHEAD = [
    (*_table(0), _tensor(1.0, -2.0, 0.5, 3.0, 0.0), 0.9),
    (*_table(1, 3, 2), _tensor(4.0, 0.0, -1.0), 0.5),
    (*_corridor(4), _tensor(0.2, 0.4, 0.7, 0.0), 0.8),
    (*_table(2), _tensor(1.0, 2.0, 3.0, 4.0, 5.0), 0.0),
    (*_table(3, 1, 4), _tensor(7.0), 1.0),
]


def _ahead(transitions: Tensor, rewards: Tensor, values: Tensor, discount: float) -> Tensor:
    """Number by number."""
    rows = [
        [rewards[s, a] + sum(discount * transitions[s, a, n] * values[n] for n in range(len(values)))
         for a in range(rewards.shape[1])]
        for s in range(len(values))
    ]  # fmt: skip
    return torch.stack([torch.stack(row) for row in rows])


def _ahead_case(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            same(student(*AHEAD[case]), _ahead(*AHEAD[case]), atol=1e-10)

    return holds


def _ahead_gradients(student) -> None:
    for transitions, rewards, values, discount in AHEAD[:2]:
        same_gradient(
            lambda t, r, v, d=discount: student(t, r, v, d),
            lambda t, r, v, d=discount: _ahead(t, r, v, d),
            (transitions, rewards, values),
            names=("transitions", "rewards", "values"),
        )


def _likeliest(transitions, rewards, values, discount):
    return rewards + discount * values[transitions.argmax(-1)]


AHEAD_EXERCISE = Exercise(
    id="1.3",
    name="action_values",
    points=2,
    reference=lambda transitions, rewards, values, discount: rewards + discount * transitions @ values,
    forbidden=FORBIDDEN,
    probes=lambda: [tuple(x.clone() if isinstance(x, Tensor) else x for x in given) for given in AHEAD],
    properties=[
        Property("a corridor: the reward now, the neighbour's value discounted", _ahead_case(2)),
        Property("random tables: the average over next states", _ahead_case(0, 1)),
        Property("discount 0 leaves the rewards, discount 1 counts all", _ahead_case(3, 4)),
        Property("gradients reach table, rewards and values", _ahead_gradients, "Keep tensors, and do not detach."),
    ],
    mistakes=[
        Mistake(
            "no discount",
            "The discount is missing: what comes after the next step counts less.",
            wrong=lambda transitions, rewards, values, discount: rewards + transitions @ values,
        ),
        Mistake(
            "reward discounted",
            "You discount the reward too. It is earned at once; only the value of the next state waits.",
            wrong=lambda transitions, rewards, values, discount: discount * (rewards + transitions @ values),
        ),
        Mistake(
            "wrong sum",
            "You sum over the present state. The next state is the last dimension of the table.",
            wrong=lambda transitions, rewards, values, discount: (
                rewards + discount * torch.einsum("sat,s->ta", transitions, values)
            ),
        ),
        Mistake(
            "no reward",
            "The reward of the action itself is missing.",
            wrong=lambda transitions, rewards, values, discount: discount * transitions @ values,
        ),
        Mistake(
            "present value",
            "You take the value of the present state. Average the values of the states that may come next.",
            wrong=lambda transitions, rewards, values, discount: (
                rewards + discount * values[:, None] * torch.ones_like(rewards)
            ),
        ),
        Mistake(
            "likeliest",
            "You look at the likeliest next state alone. Every state counts, weighed by its chance.",
            wrong=_likeliest,
        ),
        Mistake(
            "best possible",
            "You take the best state that may come next. The ice decides where you slip, not you: average.",
            wrong=lambda transitions, rewards, values, discount: (
                rewards + discount * torch.where(transitions > 0, values, -torch.inf).max(-1).values
            ),
        ),
    ],
)

# 1.4 Evaluate a policy ----------------------------------------------------------------------------------------

LOOP = torch.ones(1, 1, 1, dtype=torch.float64)  # one state, for ever
STILL = torch.eye(10, dtype=torch.float64)[:, None]  # ten states, each for ever; only one of them earns
EARNING = (torch.arange(10) == 3).double()[:, None]
EVALUATIONS = [
    (*_corridor(4), torch.tensor([[0.0, 1.0]] * 4).double(), 0.5, 1e-9),
    (*_table(0), _policy(1), 0.9, 1e-8),
    (*_table(4, shift=-2.0), _policy(2), 0.8, 1e-8),
    (LOOP, _tensor(1.0)[None], LOOP[0], 0.95, 0.5),
    (*_table(5, shift=1.0), _policy(3), 0.9, 0.2),
    (*_table(6, shift=-1.0), _policy(4), 0.9, 0.2),
    (*_table(7), _policy(5), 0.0, 1e-8),
    (STILL, EARNING, torch.ones_like(EARNING), 0.9, 0.3),
]


def _solved(transitions: Tensor, rewards: Tensor, policy: Tensor, discount: float) -> Tensor:
    chain = torch.einsum("sa,sat->st", policy, transitions)
    return torch.linalg.solve(torch.eye(len(chain)).double() - discount * chain, (policy * rewards).sum(-1))


def _evaluation_case(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            *given, tolerance = EVALUATIONS[case]
            got = student(*[x.clone() if isinstance(x, Tensor) else x for x in given], tolerance)
            _within(got, _solved(*given), tolerance, f"discount {given[-1]}")

    return holds


def _sweeping(
    backup: Callable[[Tensor, Tensor], Tensor],
    change: Callable[[Tensor], Tensor] = lambda gap: gap.abs().max(),
    scale: Callable[[float], float] = lambda discount: 1 - discount,
    ahead: Callable = lambda transitions, rewards, values, discount: rewards + discount * transitions @ values,
    most: int = 10_000,
) -> tuple[Callable, Callable]:
    """Sweeps until ``discount * change <= scale(discount) * tolerance``: for a policy, and for no policy."""

    def evaluate(transitions, rewards, policy, discount, tolerance):
        values = torch.zeros_like(rewards[:, 0])
        for _ in range(most):
            new = backup(ahead(transitions, rewards, values, discount), policy)
            gap, values = change(new - values), new
            if discount * gap <= scale(discount) * tolerance:
                break
        return values

    return evaluate, lambda transitions, rewards, *rest: evaluate(transitions, rewards, None, *rest)


def _agree(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, atol=1e-9)


def _mean(q: Tensor, policy: Tensor) -> Tensor:
    return (policy * q).sum(-1)


EVALUATE = Exercise(
    id="1.4",
    name="evaluate_policy",
    points=3,
    reference=_sweeping(_mean)[0],
    forbidden=FORBIDDEN,
    probes=lambda: [
        tuple(x.clone() if isinstance(x, Tensor) else x for x in given[:-1]) + (max(given[-1], 0.05),)
        for given in (EVALUATIONS[1], EVALUATIONS[2], EVALUATIONS[5], EVALUATIONS[7])
    ],
    properties=[
        Property("a corridor to the right is worth powers of the discount", _evaluation_case(0)),
        Property("values agree with the linear solve", _evaluation_case(1)),
        Property("where rewards are losses, too", _evaluation_case(2)),
        Property(
            "when it stops, it is within the tolerance of the truth",
            _evaluation_case(3, 4, 5, 7),
            "Too early: stop once discount / (1 - discount) times the largest change is at most the tolerance.",
        ),
        Property("discount 0: the expected next reward", _evaluation_case(6)),
    ],
    mistakes=[
        Mistake(
            "one sweep",
            "You stop after one sweep. Keep the old values beside the new: if both names mean one tensor, it has "
            "never changed.",
            when=lambda student: _agree(student(*EVALUATIONS[1]), _sweeping(_mean, most=1)[0](*EVALUATIONS[1])),
        ),
        Mistake(
            "change below tolerance",
            "You stop when the change is below the tolerance. The values may still be off by discount / (1 - discount) "
            "times as much.",
            wrong=lambda t, r, p, discount, tolerance: _sweeping(_mean, scale=lambda _: discount)[0](
                t, r, p, discount, tolerance
            ),
        ),
        Mistake(
            "signed change",
            "Values that fall have a negative change, and you take it for a small one. Compare absolute differences.",
            wrong=_sweeping(_mean, change=lambda gap: gap.max())[0],
        ),
        Mistake(
            "mean change",
            "You compare the mean change over the states. Every state must be within the tolerance: take the largest.",
            wrong=_sweeping(_mean, change=lambda gap: gap.abs().mean())[0],
        ),
        Mistake(
            "best action",
            "You take the best action. This is about a given policy: average by its probabilities.",
            wrong=_sweeping(lambda q, policy: q.max(-1).values)[0],
        ),
        Mistake(
            "every action alike",
            "You average all actions alike. Weigh each by the probability that the policy gives it.",
            wrong=_sweeping(lambda q, policy: q.mean(-1))[0],
        ),
        Mistake(
            "reward discounted",
            "You discount the reward too. It is earned at once; only the value of the next state waits.",
            wrong=_sweeping(_mean, ahead=lambda t, r, values, discount: discount * (r + t @ values))[0],
        ),
    ],
)

# 1.5 Be greedy ------------------------------------------------------------------------------------------------

CHOICES = [
    (_tensor([1.0, 3.0, 2.0], [0.5, -1.0, 0.0]), 1e-9),
    (_tensor([2.0, 5.0, 5.0, 1.0], [0.0, 0.0, 0.0, 0.0]), 1e-9),
    (_tensor([0.3, 0.1 + 0.2, 0.2], [-1.0, -1.0 - 1e-12, -2.0]), 1e-9),
    (_tensor([-5.0, -4.0, -9.0], [-1.0, -7.0, -3.0]), 1e-9),
    (_tensor([1.0, 0.95, 0.8], [2.0, 1.0, 1.99]), 0.1),
    (_tensor([1.0, 2.0, 2.0], [3.0, 0.5, -1.0]), 0.0),
]


def _greedy(q: Tensor, tie: float) -> Tensor:
    """Row by row, with Python's own maximum."""
    rows = []
    for row in q.tolist():
        best = [value >= max(row) - tie for value in row]
        rows.append([float(b) / sum(best) for b in best])
    return torch.tensor(rows, dtype=q.dtype)


def _greedy_case(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            q, tie = CHOICES[case]
            got = student(q.clone(), tie)
            same(torch.as_tensor(got).double(), _greedy(q, tie))

    return holds


def _shared(mask: Tensor) -> Tensor:
    return mask.double() / mask.double().sum(-1, keepdim=True)


def _first(q: Tensor, tie: float) -> Tensor:
    return torch.nn.functional.one_hot(q.argmax(-1), q.shape[-1]).double()


GREEDY = Exercise(
    id="1.5",
    name="greedy_policy",
    points=2,
    reference=lambda q, tie: _shared(q >= q.max(-1, keepdim=True).values - tie),
    forbidden=FORBIDDEN,
    probes=lambda: [(q.clone(), tie) for q, tie in CHOICES],
    properties=[
        Property("the best action has probability 1", _greedy_case(0, 3)),
        Property("equals share evenly", _greedy_case(1)),
        Property("rounding does not decide", _greedy_case(2)),
        Property("what is within the tie counts as equal, and with a tie of 0 what is equal", _greedy_case(4, 5)),
    ],
    mistakes=[
        Mistake(
            "first of equals",
            "You take the first of the best actions. Equals share the probability evenly.",
            wrong=_first,
        ),
        Mistake(
            "exact equality",
            "You compare exactly, so the last digit decides between equals. Allow for `tie`.",
            wrong=lambda q, tie: _shared(q == q.max(-1, keepdim=True).values),
        ),
        Mistake(
            "not shared",
            "Rows with several best actions add up to more than 1. Divide each row by its sum.",
            wrong=lambda q, tie: (q >= q.max(-1, keepdim=True).values - tie).double(),
        ),
        Mistake(
            "softmax",
            "You weigh actions by softmax. Greedy means: nothing for all that is not best.",
            wrong=lambda q, tie: q.softmax(-1),
        ),
        Mistake(
            "worst",
            "You take the worst action. The best one has the largest value.",
            wrong=lambda q, tie: _shared(q <= q.min(-1, keepdim=True).values + tie),
        ),
        Mistake(
            "best of all states",
            "You compare with the best value of the whole table. Each state has its own best.",
            wrong=lambda q, tie: _shared(q >= q.max() - tie),
        ),
        Mistake(
            "numbers of actions",
            "You return the numbers of the best actions. Return a table of probabilities, one row a state.",
            wrong=lambda q, tie: q.argmax(-1),
        ),
    ],
)

# 1.6 The best values ------------------------------------------------------------------------------------------

PLANS = [
    (*_corridor(5), 0.8, 1e-9),
    (*_table(10, 4, 2), 0.9, 1e-8),
    (*_table(11, 4, 2, shift=-2.0), 0.7, 1e-8),
    (LOOP, _tensor(1.0)[None], 0.95, 0.5),
    (*_table(12, 4, 2, shift=1.0), 0.9, 0.2),
    (*_table(13, 4, 2, shift=-1.5), 0.9, 0.2),
    (*_table(14, 4, 2), 0.0, 1e-8),
    (STILL, EARNING, 0.9, 0.3),
]


def _optimum(transitions: Tensor, rewards: Tensor, discount: float) -> Tensor:
    """The best of all deterministic policies, each solved."""
    states, actions = rewards.shape
    choices = torch.tensor(list(itertools.product(range(actions), repeat=states)))
    rows = torch.arange(states)
    systems = torch.eye(states).double() - discount * transitions[rows, choices]
    return torch.linalg.solve(systems, rewards[rows, choices]).amax(0)


def _plan_case(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            *given, tolerance = PLANS[case]
            got = student(*[x.clone() if isinstance(x, Tensor) else x for x in given], tolerance)
            _within(got, _optimum(*given), tolerance, f"discount {given[-1]}")

    return holds


def _best(q: Tensor, policy: None) -> Tensor:
    return q.max(-1).values


def _lucky(transitions, rewards, values, discount):
    return rewards + discount * torch.where(transitions > 0, values, -torch.inf).max(-1).values


def _by_change(transitions, rewards, discount, tolerance):
    return _sweeping(_best, scale=lambda _: discount)[1](transitions, rewards, discount, tolerance)


PLAN = Exercise(
    id="1.6",
    name="value_iteration",
    points=3,
    reference=_sweeping(_best)[1],
    forbidden=FORBIDDEN,
    probes=lambda: [
        tuple(x.clone() if isinstance(x, Tensor) else x for x in given[:-1]) + (max(given[-1], 0.05),)
        for given in (PLANS[1], PLANS[2], PLANS[5], PLANS[7])
    ],
    properties=[
        Property("a corridor is worth powers of the discount", _plan_case(0)),
        Property("values are those of the best of all policies", _plan_case(1)),
        Property("where rewards are losses, too", _plan_case(2)),
        Property(
            "when it stops, it is within the tolerance of the truth",
            _plan_case(3, 4, 5, 7),
            "Too early: stop once discount / (1 - discount) times the largest change is at most the tolerance.",
        ),
        Property("discount 0: the best next reward", _plan_case(6)),
    ],
    mistakes=[
        Mistake(
            "one sweep",
            "You stop after one sweep. Keep the old values beside the new: if both names mean one tensor, it has "
            "never changed.",
            when=lambda student: _agree(student(*PLANS[1]), _sweeping(_best, most=1)[1](*PLANS[1])),
        ),
        Mistake(
            "mean action",
            "You average over the actions: that evaluates random behaviour. Take the best action.",
            wrong=_sweeping(lambda q, policy: q.mean(-1))[1],
        ),
        Mistake(
            "worst action",
            "You take the worst action. The best one has the largest value.",
            wrong=_sweeping(lambda q, policy: q.min(-1).values)[1],
        ),
        Mistake(
            "lucky",
            "You choose the next state. Only the action is yours: first average over next states, then take the best.",
            wrong=_sweeping(_best, ahead=_lucky)[1],
        ),
        Mistake(
            "change below tolerance",
            "You stop when the change is below the tolerance. The values may still be off by discount / (1 - discount) "
            "times as much.",
            wrong=_by_change,
        ),
        Mistake(
            "signed change",
            "Values that fall have a negative change, and you take it for a small one. Compare absolute differences.",
            wrong=_sweeping(_best, change=lambda gap: gap.max())[1],
        ),
        Mistake(
            "mean change",
            "You compare the mean change over the states. Every state must be within the tolerance: take the largest.",
            wrong=_sweeping(_best, change=lambda gap: gap.abs().mean())[1],
        ),
        Mistake(
            "reward discounted",
            "You discount the reward too. It is earned at once; only the value of the next state waits.",
            wrong=_sweeping(_best, ahead=lambda t, r, values, discount: discount * (r + t @ values))[1],
        ),
    ],
)

# 1.7 The maximum on a leash -----------------------------------------------------------------------------------

LEASHES = [
    (_tensor([1.0, 0.0, 2.0], [0.0, 0.5, -1.0]), _tensor([0.2, 0.5, 0.3], [0.6, 0.3, 0.1]), 1.0),
    (_tensor([1.0, 0.0], [3.0, 3.2]), _tensor([0.9, 0.1], [0.25, 0.75]), 0.3),
    (_tensor(*[[1.0, 2.0, 9.0]] * 2), _tensor(*[[0.5, 0.5, 0.0]] * 2), 0.5),  # what the base never does stays undone
    (_tensor([5.0, 7.0], [-9.0, -8.0]), _tensor([0.5, 0.5], [0.7, 0.3]), 1e-3),
    (_tensor([1.0, 2.0], [4.0, 0.0]), _tensor([0.4, 0.6], [0.5, 0.5]), 1e4),
]


def _leashed(q: Tensor, base: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """With the best value taken out before the exponential."""
    best = torch.where(base > 0, q, -torch.inf).max(-1, keepdim=True).values
    weights = base * torch.exp(((q - best) / beta).clamp_max(0))
    total = weights.sum(-1, keepdim=True)
    return (best + beta * total.log())[..., 0], weights / total


def _leash_case(*cases: int) -> Callable:
    def holds(student) -> None:
        for case in cases:
            got = student(*[x.clone() if isinstance(x, Tensor) else x for x in LEASHES[case]])
            if not isinstance(got, tuple | list) or len(got) != 2:
                raise Mismatch(f"came out  {type(got).__name__}\nexpected  two tensors: values and policy")
            values, policy = _leashed(*LEASHES[case])
            same(got[0], values, atol=1e-8, what="the values")
            same(got[1], policy, atol=1e-8, what="the policy")

    return holds


def _leash_aim(student) -> None:
    """The value is what the policy earns, less beta times its KL to the base; no other policy earns more."""
    q, base, beta = LEASHES[0]
    values, policy = student(q.clone(), base.clone(), beta)
    same((policy * (q - beta * (policy / base).log())).sum(-1), values, atol=1e-8, what="reward less beta KL")


def _leash_gradient(student) -> None:
    q, base, beta = LEASHES[0]
    same_gradient(
        lambda q, base: student(q, base, beta),
        lambda q, base: _leashed(q, base, beta),
        (q, base),
        names=("q", "base"),
        atol=1e-8,
    )


def _leash_like(weigh=lambda q, base, beta: base.log() + q / beta, value=lambda total, beta: beta * total) -> Callable:
    def soft_backup(q, base, beta):
        weights = weigh(q, base, beta)
        return value(weights.logsumexp(-1), beta), weights.softmax(-1)

    return soft_backup


def _averaged(q, base, beta):
    weights = base.log() + q / beta
    return (weights.softmax(-1) * q).sum(-1), weights.softmax(-1)


LEASH = Exercise(
    id="1.7",
    name="soft_backup",
    points=3,
    reference=_leash_like(),
    forbidden=FORBIDDEN,
    probes=lambda: [(q.clone(), base.clone(), beta) for q, base, beta in LEASHES],
    properties=[
        Property("values and policy are those of the formula", _leash_case(0, 1)),
        Property("the value is the reward less beta times the KL", _leash_aim),
        Property("what the base never does, the policy never does", _leash_case(2)),
        Property("a tight and a loose leash: nothing overflows", _leash_case(3, 4)),
        Property(
            "gradients reach action values and base, from both",
            _leash_gradient,
            "Do not detach: the gradient of v in q is the policy.",
        ),
    ],
    mistakes=[
        Mistake(
            "no base",
            "The base is missing: you plan from equal chances. Weigh each action by what the base gives it.",
            wrong=_leash_like(weigh=lambda q, base, beta: q / beta),
        ),
        Mistake(
            "times beta",
            "You multiply the action values by beta in the exponent. A tight leash (large beta) weakens them: divide.",
            wrong=_leash_like(weigh=lambda q, base, beta: base.log() + q * beta),
        ),
        Mistake(
            "value without beta",
            "The value lacks its beta: in front of the logarithm it brings back the units of the reward.",
            wrong=_leash_like(value=lambda total, beta: total),
        ),
        Mistake(
            "overflow",
            "For a small beta the exponential overflows or vanishes. Stay in logarithms: logsumexp and softmax.",
            when=lambda student: not all(x.isfinite().all() for x in student(*LEASHES[3])),
        ),
        Mistake(
            "expected action value",
            "Your value is the expected action value alone. The leash costs: subtract beta KL, or use the formula.",
            wrong=_averaged,
        ),
        Mistake(
            "base, not its logarithm",
            "You add the probabilities of the base to an exponent. It is their logarithm that belongs there.",
            wrong=_leash_like(weigh=lambda q, base, beta: base + q / beta),
        ),
        Mistake(
            "maximum",
            "You take the best action, as if there were no leash.",
            wrong=lambda q, base, beta: (q.max(-1).values, _first(q, 0.0)),
        ),
    ],
)

EXERCISES = [RETURN, ROW, AHEAD_EXERCISE, EVALUATE, GREEDY, PLAN, LEASH]
