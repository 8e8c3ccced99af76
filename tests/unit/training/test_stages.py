"""Both stages of training, on a problem small enough to solve."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from capsmith.evaluate.lexical import CiderD  # noqa: E402
from capsmith.models.language_models import CrossAttentionDecoder  # noqa: E402
from capsmith.runtime.rules import Rules  # noqa: E402
from capsmith.training.loop import Average, Schedule, fit, parameter_groups  # noqa: E402
from capsmith.training.self_critical import advantages, searched, self_critical_loss  # noqa: E402

START, STOP = 1, 2


def schedule(**changes):
    return Schedule(
        **{"steps": 12, "learning_rate": 0.05, "warmup": 2, "check_every": 4, **changes}
    )


def regression(seed=0):
    """A linear model and the losses of its steps; each step's data depend on the step alone."""
    torch.manual_seed(seed)
    model = nn.Linear(3, 1)

    def losses(first=0):
        for step in range(first, 1000):
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            yield {"square": (model(x)[:, 0] - x.sum(1)).square().mean()}

    return model, losses


def run(path, model, losses):
    groups = parameter_groups(model, nn.Module(), 1.0, schedule())
    fit(
        model, groups, losses, schedule(), checkpoint=path, check=lambda: "checked", log=[].append
    )  # fmt: skip


def test_fit_learns_and_checks_the_averaged_weights(tmp_path):
    model, losses = regression()
    seen = []

    def check():
        seen.append(model.weight.detach().clone())
        return "checked"

    groups = parameter_groups(model, nn.Module(), 1.0, schedule(steps=200))
    before = next(losses())["square"].item()
    fit(model, groups, losses(), schedule(steps=200, check_every=100, log_every=50),
        checkpoint=tmp_path / "c.pt", check=check, log=[].append)  # fmt: skip
    assert next(losses())["square"].item() < 0.05 * before
    saved = torch.load(tmp_path / "c.pt", weights_only=True)
    torch.testing.assert_close(saved["average"]["weight"], seen[-1])
    assert not saved["average"]["weight"].equal(saved["model"]["weight"])


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path):
    model, losses = regression()
    run(tmp_path / "whole.pt", model, losses())
    whole = torch.load(tmp_path / "whole.pt", weights_only=True)

    class Killed(Exception):
        pass

    def interrupted(losses):
        for step, terms in enumerate(losses):
            if step == 9:  # after the checkpoint of step 8
                raise Killed
            yield terms

    model, losses = regression()
    with pytest.raises(Killed):
        run(tmp_path / "cut.pt", model, interrupted(losses()))
    model, losses = regression(seed=9)
    run(tmp_path / "cut.pt", model, losses(first=8))
    again = torch.load(tmp_path / "cut.pt", weights_only=True)
    assert again["step"] == whole["step"] == 12
    for part in ("model", "average"):
        for name, value in whole[part].items():
            torch.testing.assert_close(again[part][name], value)


def test_the_rate_warms_up_and_decays_to_its_floor():
    rates = [schedule(steps=100, warmup=10).factor(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert all(a >= b for a, b in itertools.pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0.02)


def test_slow_parameters_and_biases_have_groups_of_their_own():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    groups = parameter_groups(model, model[0], 0.1, schedule())
    table = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert table[id(model[0].weight)] == (pytest.approx(0.005), 0.05)
    assert table[id(model[1].bias)] == (0.05, 0.0)
    assert len(table) == 4


def test_swapping_the_average_twice_changes_nothing():
    model, _ = regression()
    average = Average(model, 0.9)
    with torch.no_grad():
        model.weight.add_(1)
    average.update(model)
    before = model.weight.detach().clone()
    average.swap(model)
    assert not model.weight.equal(before)
    average.swap(model)
    assert model.weight.equal(before)


class Speaker(nn.Module):
    """The part of a captioner that the self-critical stage needs."""

    def __init__(self):
        super().__init__()
        self.language_model = CrossAttentionDecoder(12, width=16, layers=1, heads=2, positions=12)


def test_rewarded_captions_are_found_by_search():
    torch.manual_seed(0)
    model = Speaker().eval()
    prefix = torch.randn(3, 2, 16)
    references = [[[4, 5, 6, STOP]], [[7, 8, STOP], [7, 9, STOP]], [[10, 11, 4, STOP]]]
    reward = CiderD(references)
    rules = Rules(prompt=(START,), stop=frozenset({STOP}), max_tokens=6)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    rewards = []
    for _ in range(60):
        loss, mean = self_critical_loss(model, prefix, reward, [0, 1, 2], rules=rules, captions=12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rewards.append(mean)
    assert sum(rewards[-10:]) > 3 * sum(rewards[:10])


def test_rewards_are_compared_within_a_photo_and_on_one_scale():
    scores = torch.tensor([1.0, 3.0, 0.2, 0.2, 0.1, 0.3])
    got = advantages(scores, torch.tensor([0, 0, 1, 1, 2, 2]))
    torch.testing.assert_close(got, torch.tensor([-1.0, 1.0, 0.0, 0.0, -1.0, 1.0]))


def test_the_gradient_prefers_the_better_of_two_captions():
    torch.manual_seed(0)
    model = Speaker().eval()
    prefix = torch.randn(1, 2, 16)
    rules = Rules(prompt=(START,), stop=frozenset({STOP}), max_tokens=4)
    rows, owner = searched(model, prefix, rules, captions=2)
    assert owner == [0, 0]
    better, worse = rows
    reward = CiderD([[better], [worse]])  # of two photos, so that n-grams differ in weight

    def margin() -> float:
        return score(better) - score(worse)

    def score(row: list[int]) -> float:
        tokens = torch.tensor([[START, *row]])
        logits = model.language_model.head(
            model.language_model.hidden(tokens[:, :-1], prefix, torch.tensor([0]))
        )
        return logits.log_softmax(2)[0, range(len(row)), row].sum().item()

    before = margin()
    loss, _ = self_critical_loss(model, prefix, reward, [0], rules=rules, captions=2)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 * parameter.grad
    assert margin() > before
