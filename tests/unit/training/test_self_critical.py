"""Self-critical training, on a problem small enough to solve."""

import pytest

torch = pytest.importorskip("torch")

from capsmith.evaluate.lexical import CiderD  # noqa: E402
from capsmith.models.caption_model import CaptionModel  # noqa: E402
from capsmith.models.language_models import CrossAttentionConfig, CrossAttentionDecoder  # noqa: E402
from capsmith.models.mappers import MLPConfig, MLPMapper  # noqa: E402
from capsmith.runtime.rules import Rules  # noqa: E402
from capsmith.training.self_critical import advantages, searched, self_critical_loss  # noqa: E402

START, STOP = 1, 2


def speaker(languages: int = 0):
    """A captioner of which the mapper passes 2 x 16 features on."""
    mapper = MLPMapper(MLPConfig(input_width=32, rows=2, width=16))
    config = CrossAttentionConfig(
        vocab_size=12, width=16, layers=1, heads=2, positions=12, languages=languages
    )
    decoder = CrossAttentionDecoder(config)
    return CaptionModel(mapper, decoder, start_tokens=[START], end_token=STOP)


def test_rewarded_captions_are_found_by_search():
    torch.manual_seed(0)
    model = speaker().eval()
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
    model = speaker().eval()
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


def test_a_language_s_words_are_weighed_among_themselves():
    torch.manual_seed(0)
    model = speaker(languages=1).eval()
    decoder = model.language_model
    asks, words = 11, torch.tensor([STOP, 4, 5, 6])
    decoder.keep_to({asks: words})
    prefix = torch.randn(1, 2, 16)
    rules = Rules(prompt=(START, asks), stop=frozenset({STOP}), max_tokens=4)
    rows, _ = searched(model, prefix, rules, captions=2)
    assert set().union(*rows) <= set(words.tolist())
    reward = CiderD([[rows[0]], [rows[1]]])
    loss, _ = self_critical_loss(model, prefix, reward, [0], rules=rules, captions=2, among=words)
    loss.backward()
    others = [token for token in range(12) if token not in words]
    assert loss.isfinite()
    assert decoder.bias.grad is not None
    assert decoder.bias.grad[words].abs().max() > 0
    assert (decoder.bias.grad[others] == 0).all()
