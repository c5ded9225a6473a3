"""Wrong answers to lab 02, each as a student might write it; its check must refuse it with this hint."""

import torch

from pixelpolicy.course.proof import Mutant

# 2.1


def averaged(returns_of, mean=True, once=False, missing=0.0):
    """Means of what `returns_of(rewards, discount)` gives for each step, by state."""

    def monte_carlo(episodes, states, discount):
        found = {state: [] for state in range(states)}
        for visited, rewards in episodes:
            seen = set()
            for state, value in zip(visited.tolist(), returns_of(rewards.tolist(), discount), strict=True):
                if not (once and state in seen):
                    found[state].append(value)
                seen.add(state)
        sums = [sum(f) / len(f) if f and mean else sum(f) if f else missing for f in found.values()]
        return torch.tensor(sums, dtype=torch.float64)

    return monte_carlo


def to_go(rewards, discount):
    return [sum(discount**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))]


def to_go_undiscounted(rewards, discount):
    return [sum(rewards[t:]) for t in range(len(rewards))]


def to_go_late(rewards, discount):
    return [discount * value for value in to_go(rewards, discount)]


def so_far(rewards, discount):
    values, total = [], 0.0
    for reward in rewards:
        total = reward + discount * total
        values.append(total)
    return values


def of_the_start(rewards, discount):
    return [to_go(rewards, discount)[0]] * len(rewards)


def monte_carlo_dividing_by_nothing(episodes, states, discount):
    totals, visits = torch.zeros(states).double(), torch.zeros(states).double()
    for visited, rewards in episodes:
        for state, value in zip(visited, to_go(rewards.tolist(), discount), strict=True):
            totals[state] += value
            visits[state] += 1
    return totals / visits


# 2.2


def target_stopping_at_the_clock(rewards, next_values, terminated, truncated, discount):
    done = torch.logical_or(terminated, truncated)
    return rewards + discount * torch.where(done, 0.0, next_values)


def target_without_an_end(rewards, next_values, terminated, truncated, discount):
    return rewards + discount * next_values


def target_stopping_only_at_the_clock(rewards, next_values, terminated, truncated, discount):
    return rewards + discount * (1 - truncated.double()) * next_values


def target_undiscounted(rewards, next_values, terminated, truncated, discount):
    return rewards + torch.where(terminated, torch.zeros_like(next_values), next_values)


def target_discounting_now(rewards, next_values, terminated, truncated, discount):
    return discount * (rewards + torch.where(terminated, torch.zeros_like(next_values), next_values))


def target_of_nothing(rewards, next_values, terminated, truncated, discount):
    return torch.where(terminated, torch.zeros_like(rewards), rewards + discount * next_values)


# 2.3


def greedy_or_others(values, epsilon):
    count = values.shape[-1]
    best = values == values.max(-1, keepdim=True).values
    shared = best / best.sum(-1, keepdim=True)
    return torch.where(best, (1 - epsilon) * shared + epsilon * (1 - shared) / (count - 1),
                       epsilon * (1 - shared) / (count - 1))  # fmt: skip


def first_of_a_tie(values, epsilon):
    chances = torch.full_like(values, epsilon / values.shape[-1])
    return chances.scatter_add(-1, values.argmax(-1, keepdim=True), torch.full_like(values[..., :1], 1 - epsilon))


def tie_in_full(values, epsilon):
    best = (values == values.max(-1, keepdim=True).values).float()
    return (1 - epsilon) * best + epsilon / values.shape[-1]


def blind_share_exchanged(values, epsilon):
    best = (values == values.max(-1, keepdim=True).values).float()
    return epsilon * best / best.sum(-1, keepdim=True) + (1 - epsilon) / values.shape[-1]


def only_greedy(values, epsilon):
    best = (values == values.max(-1, keepdim=True).values).float()
    return best / best.sum(-1, keepdim=True)


def maximum_of_all(values, epsilon):
    return (1 - epsilon) * (values == values.max()).float() + epsilon / values.shape[-1]


def epsilon_each(values, epsilon):
    best = (values == values.max(-1, keepdim=True).values).float()
    return (1 - epsilon) * best / best.sum(-1, keepdim=True) + epsilon


# 2.4 and 2.5


def learning(worth, ends=True, move=True, size=True, row=False, discounting=True):
    def update(q, state, action, reward, next_state, terminated, step_size, discount):
        q = q.clone()
        future = 0.0 if terminated and ends else float(worth(q, state, next_state))
        target = reward + (discount if discounting else 1.0) * future
        step = step_size if size else 1.0
        for a in range(q.shape[1]) if row else [action]:
            q[state, a] = q[state, a] + step * (target - (q[state, a] if move else 0.0))
        return q

    return update


def next_best(q, state, next_state):
    return q[next_state].max()


def sarsa(worth, ends=True, place=lambda s, a, n, m: (s, a), move=True):
    def update(q, state, action, reward, next_state, next_action, terminated, step_size, discount):
        q = q.clone()
        future = 0.0 if terminated and ends else float(worth(q, state, action, next_state, next_action))
        at = place(state, action, next_state, next_action)
        q[at] += step_size * (reward + discount * future - (q[at] if move else 0.0))
        return q

    return update


def taken(q, s, a, n, m):
    return q[n, m]


# 2.6


def linear_residual(weights, features, next_features, reward, ratio, step_size, discount):
    error = reward + discount * torch.dot(weights, next_features) - torch.dot(weights, features)
    return weights - step_size * ratio * error * (discount * next_features - features)


def linear_on_policy(weights, features, next_features, reward, ratio, step_size, discount):
    error = reward + discount * torch.dot(weights, next_features) - torch.dot(weights, features)
    return weights + step_size * error * features


def linear_downhill(weights, features, next_features, reward, ratio, step_size, discount):
    error = torch.dot(weights, features) - reward - discount * torch.dot(weights, next_features)
    return weights + step_size * ratio * error * features


def linear_along_the_next(weights, features, next_features, reward, ratio, step_size, discount):
    error = reward + discount * torch.dot(weights, next_features) - torch.dot(weights, features)
    return weights + step_size * ratio * error * next_features


def linear_undiscounted(weights, features, next_features, reward, ratio, step_size, discount):
    error = reward + torch.dot(weights, next_features) - torch.dot(weights, features)
    return weights + step_size * ratio * error * features


def linear_target_weighed(weights, features, next_features, reward, ratio, step_size, discount):
    target = reward + discount * torch.dot(weights, next_features)
    return weights + step_size * (ratio * target - torch.dot(weights, features)) * features


def linear_change(weights, features, next_features, reward, ratio, step_size, discount):
    error = reward + discount * torch.dot(weights, next_features) - torch.dot(weights, features)
    return step_size * ratio * error * features


# 2.7


def judged(worth, mask=lambda over: 1 - over.double(), discounting=True, finish=torch.detach):
    def targets(returns, next_online, next_target, terminated, discounts):
        future = mask(terminated) * worth(next_online, next_target)
        return finish(returns + (discounts if discounting else 1.0) * future)

    return targets


def chosen(chooser, judge):
    return judge[torch.arange(len(judge)), chooser.argmax(1)]


def targets_in_a_square(returns, next_online, next_target, terminated, discounts):
    worth = next_target.gather(1, next_online.argmax(1, keepdim=True))
    return (returns + discounts * ~terminated * worth).detach()


MUTANTS = {
    "2.1": [
        Mutant("does not discount", averaged(to_go_undiscounted), "never use the discount"),
        Mutant("discounts at once", averaged(to_go_late), "the reward of the step itself"),
        Mutant("counts first visits", averaged(to_go, once=True), "only the first visit"),
        Mutant("sums", averaged(to_go, mean=False), "divide by the number of visits"),
        Mutant("adds up forwards", averaged(so_far), "Go through the steps backwards"),
        Mutant("gives all the same", averaged(of_the_start), "the return of its first step"),
        Mutant("divides by nothing", monte_carlo_dividing_by_nothing, "comes out as nan"),
    ],
    "2.2": [
        Mutant("stops at the clock", target_stopping_at_the_clock, "You treat the clock as an end"),
        Mutant("never ends", target_without_an_end, "the target is the reward alone"),
        Mutant("stops only at the clock", target_stopping_only_at_the_clock, "two flags are exchanged"),
        Mutant("does not discount", target_undiscounted, "without its discount"),
        Mutant("discounts the reward", target_discounting_now, "You discount the reward too"),
        Mutant("gives nothing at the end", target_of_nothing, "The last reward was still earned"),
    ],
    "2.3": [
        Mutant("explores others only", greedy_or_others, "may hit the best one too"),
        Mutant("takes the first of a tie", first_of_a_tie, "the first gets all"),
        Mutant("gives ties in full", tie_in_full, "Divide by how many tie"),
        Mutant("exchanges the shares", blind_share_exchanged, "are exchanged"),
        Mutant("is greedy", only_greedy, "never tries anything else"),
        Mutant("takes one maximum", maximum_of_all, "Each row has its own"),
        Mutant("gives epsilon to each", epsilon_each, "is divided among all actions"),
    ],
    "2.4": [
        Mutant("bootstraps at the end", learning(next_best, ends=False), "After a terminal step nothing comes"),
        Mutant("looks back", learning(lambda q, s, n: q[s].max()), "the state that was left"),
        Mutant("averages", learning(lambda q, s, n: q[n].mean()), "You average over the next actions"),
        Mutant("takes argmax", learning(lambda q, s, n: q[n].argmax()), "the number of the best action"),
        Mutant("looks everywhere", learning(lambda q, s, n: q.max()), "largest entry of the whole table"),
        Mutant("adds the target", learning(next_best, move=False), "moves by the difference"),
        Mutant("replaces", learning(next_best, size=False), "only a part of the way"),
        Mutant("changes the row", learning(next_best, row=True), "every action of the state"),
        Mutant("does not discount", learning(next_best, discounting=False), "is discounted, and here it is not"),
    ],
    "2.5": [
        Mutant("learns the best", sarsa(lambda q, s, a, n, m: q[n].max()), "This is Q-learning"),
        Mutant("bootstraps at the end", sarsa(taken, ends=False), "there is no next action"),
        Mutant("looks at the old state", sarsa(lambda q, s, a, n, m: q[s, m]), "at the state that was left"),
        Mutant("looks at the old action", sarsa(lambda q, s, a, n, m: q[n, a]), "has its own name"),
        Mutant("changes the next", sarsa(taken, place=lambda s, a, n, m: (n, m)), "the entry of the next pair"),
        Mutant("adds the target", sarsa(taken, move=False), "moves by the difference"),
    ],
    "2.6": [
        Mutant("follows the full gradient", linear_residual, "the gradient of the next value too"),
        Mutant("forgets the ratio", linear_on_policy, "The ratio is missing"),
        Mutant("goes downhill", linear_downhill, "move away from the target"),
        Mutant("moves along the next", linear_along_the_next, "along the features of the next state"),
        Mutant("does not discount", linear_undiscounted, "without its discount"),
        Mutant("weighs the target", linear_target_weighed, "You weigh the target alone"),
        Mutant("returns the change", linear_change, "Return the weights after it"),
    ],
    "2.7": [
        Mutant("takes the maximum", judged(lambda o, t: t.max(1).values), "favours its errors"),
        Mutant("exchanges the roles", judged(lambda o, t: chosen(t, o)), "The roles are exchanged"),
        Mutant("has no target network", judged(lambda o, t: o.max(1).values), "judges its own choice"),
        Mutant("never ends", judged(chosen, mask=lambda over: 1.0), "the target is the return alone"),
        Mutant("turns the mask", judged(chosen, mask=lambda over: over.double()), "The mask is turned over"),
        Mutant("does not discount", judged(chosen, discounting=False), "without its discount"),
        Mutant("makes a square", targets_in_a_square, "came out as a square"),
        Mutant("keeps the gradient", judged(chosen, finish=lambda x: x), "Call .detach()"),
    ],
}
