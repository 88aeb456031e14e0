"""Architectures for text, sound, series and tables, small and with random weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfront.core import Array
from bitfront.experiments.zoo.network import ZooNetwork, constant, feed_of, normal, picture, tokens, uniform
from bitfront.experiments.zoo.torch_export import torch_network

WORDS, WIDTH, HEADS, LENGTH = 1000, 64, 4, 24


class Attention(nn.Module):
    """Multi-head attention, optionally causal, with rotated positions or fewer key heads."""

    def __init__(self, *, causal: bool = False, rotary: bool = False, key_heads: int = HEADS) -> None:
        super().__init__()
        self.causal, self.rotary, self.key_heads, self.size = causal, rotary, key_heads, WIDTH // HEADS
        self.query, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.key, self.value = (nn.Linear(WIDTH, key_heads * self.size) for _ in range(2))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: D102
        q, k, v = (
            part(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        if self.rotary:
            q, k = _rotated(q), _rotated(k)
        if self.key_heads < HEADS:
            k, v = (t.repeat_interleave(HEADS // self.key_heads, dim=1) for t in (k, v))
        y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        answer: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return answer


def _rotated(x: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * torch.exp(-torch.arange(half) * 2 * math.log(10_000) / x.shape[-1])
    one, other = x[..., :half], x[..., half:]
    return torch.cat([one * angles.cos() - other * angles.sin(), other * angles.cos() + one * angles.sin()], -1)


class Block(nn.Module):
    """Attention and a feed-forward part, normalised before each, or after."""

    def __init__(self, attention: Attention, norm: type[nn.Module] = nn.LayerNorm, *, gated: bool, after: bool) -> None:
        super().__init__()
        self.attention, self.gated, self.after = attention, gated, after
        self.norm1, self.norm2 = norm(WIDTH), norm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.gate = nn.Linear(WIDTH, 4 * WIDTH) if gated else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:  # noqa: D102
        if self.after:
            x = self.norm1(x + self.attention(x, mask))
            answer: Tensor = self.norm2(x + self._feed(x))
            return answer
        x = x + self.attention(self.norm1(x), mask)
        return x + self._feed(self.norm2(x))

    def _feed(self, x: Tensor) -> Tensor:
        y = functional.silu(self.gate(x)) * self.up(x) if self.gated else functional.gelu(self.up(x))
        answer: Tensor = self.down(y)
        return answer


class Vit(nn.Module):
    """Patches, a class token, learned positions."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, WIDTH, 8, 8), nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(0.3 * torch.randn(1, 17, WIDTH))
        self.blocks = nn.ModuleList(Block(Attention(), gated=False, after=False) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10)

    def forward(self, image: Tensor) -> Tensor:  # noqa: D102
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        for block in self.blocks:
            x = block(x)
        answer: Tensor = self.head(self.norm(x[:, 0]))
        return answer


class Bert(nn.Module):
    """Three embeddings, masked attention, a pooled and a full output."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places, self.types = (
            nn.Embedding(WORDS, WIDTH),
            nn.Embedding(64, WIDTH),
            nn.Embedding(2, WIDTH),
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(Block(Attention(), gated=False, after=True) for _ in range(2))
        self.pool = nn.Linear(WIDTH, WIDTH)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        places = torch.arange(input_ids.shape[1])
        x = self.norm(self.words(input_ids) + self.places(places) + self.types(torch.zeros_like(input_ids)))
        mask = (1 - attention_mask[:, None, None, :].to(x.dtype)) * torch.finfo(x.dtype).min
        for block in self.blocks:
            x = block(x, mask)
        return x, torch.tanh(self.pool(x[:, 0]))


class Gpt(nn.Module):
    """A causal decoder whose last layer is its embedding table."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(64, WIDTH)
        self.blocks = nn.ModuleList(Block(Attention(causal=True), gated=False, after=False) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, input_ids: Tensor) -> Tensor:  # noqa: D102
        x = self.words(input_ids) + self.places(torch.arange(input_ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        answer: Tensor = self.head(self.norm(x))
        return answer


class Llama(nn.Module):
    """RMS normalisation, rotated positions, shared key heads, gated feed-forward."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        attention = [Attention(causal=True, rotary=True, key_heads=2) for _ in range(2)]
        self.blocks = nn.ModuleList(Block(part, nn.RMSNorm, gated=True, after=False) for part in attention)
        self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, input_ids: Tensor) -> Tensor:  # noqa: D102
        x = self.words(input_ids)
        for block in self.blocks:
            x = block(x)
        answer: Tensor = self.head(self.norm(x))
        return answer


class DecoderStep(nn.Module):
    """Step of a decoder with its keys and values so far: they come in and go out, (n, heads, length, size)."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(WORDS, WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, token: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: D102
        x = self.words(token)
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in self.qkv(self.norm(x)).chunk(3, -1))
        keys, values = torch.cat([keys, k], 2), torch.cat([values, v], 2)
        y = torch.softmax(q @ keys.transpose(-1, -2) / 4, -1) @ values
        return self.head(x + self.out(y.transpose(1, 2).flatten(2))), keys, values


class Translator(nn.Module):
    """PyTorch's own encoder and decoder, with cross-attention."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.body = nn.Transformer(WIDTH, HEADS, 1, 1, 128, dropout=0.0, batch_first=True)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:  # noqa: D102
        answer: Tensor = self.head(self.body(self.words(source), self.words(target)))
        return answer


class Tagger(nn.Module):
    """Tagger: two layers of a recurrent kind, in both directions, an embedding and a classifier around."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.body = kind(WIDTH, WIDTH, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(2 * WIDTH, 12)

    def forward(self, input_ids: Tensor) -> Tensor:  # noqa: D102
        answer: Tensor = self.head(self.body(self.words(input_ids))[0])
        return answer


class Experts(nn.Module):
    """A mixture of experts: two of four for each token, by a gate; their weights stand in one array."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(WIDTH, 4)
        self.up, self.down = (nn.Parameter(torch.randn(4, WIDTH, WIDTH) / 8) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        best, index = self.gate(x).softmax(-1).topk(2, -1)
        weights = torch.zeros(*x.shape[:-1], 4).scatter(-1, index, best)
        hidden = functional.relu(torch.einsum("nti,eio->nteo", x, self.up))
        return x + torch.einsum("nteo,eod,nte->ntd", hidden, self.down, weights)


class Recommender(nn.Module):
    """Numbers and categories, a bag of items, crossed, two towers, two answers."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.places = nn.Embedding(5000, 32), nn.Embedding(200, 32)
        self.items = nn.Embedding(3000, 32)
        self.numbers = nn.Sequential(nn.BatchNorm1d(13), nn.Linear(13, 32), nn.ReLU())
        self.cross = nn.Bilinear(32, 32, 16)
        self.top = nn.Sequential(nn.Linear(32 * 4 + 16, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, user: Tensor, place: Tensor, items: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        parts = [self.users(user), self.places(place), self.items(items).mean(1), self.numbers(numbers)]
        answers = self.top(torch.cat([*parts, self.cross(parts[0], parts[2])], 1))
        return answers[:, :1].sigmoid(), answers[:, 1:]


class KeywordSpotter(nn.Module):
    """Dilated one-dimensional convolutions, depthwise and pointwise, over a spectrogram."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = [nn.Conv1d(40, 64, 3, padding=1), nn.BatchNorm1d(64), nn.ReLU()]
        for dilation in (1, 2, 4):
            parts += [nn.Conv1d(64, 64, 5, padding=2 * dilation, dilation=dilation, groups=64), nn.Conv1d(64, 64, 1)]
            parts += [nn.BatchNorm1d(64), nn.ReLU()]
        self.body, self.head = nn.Sequential(*parts), nn.Linear(64, 12)

    def forward(self, spectrogram: Tensor) -> Tensor:  # noqa: D102
        answer: Tensor = self.head(self.body(spectrogram).mean(-1)).log_softmax(-1)
        return answer


class GraphNet(nn.Module):
    """Graph convolutions with a dense neighbourhood matrix: weights on the right, and a product of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, nodes: Tensor, neighbours: Tensor) -> Tensor:  # noqa: D102
        x = functional.elu(self.first(neighbours @ nodes))
        answer: Tensor = self.out(functional.elu(self.second(neighbours @ x)))
        return answer


class Forecaster(nn.Module):
    """A weight on the left of a product (mixing times), then on the right (mixing features)."""

    def __init__(self) -> None:
        super().__init__()
        self.times, self.features = nn.Parameter(torch.randn(48, 48) / 7), nn.Parameter(torch.randn(16, 16) / 4)
        self.out = nn.Linear(48, 12)

    def forward(self, series: Tensor) -> Tensor:  # noqa: D102
        x = series + torch.tanh(self.times @ series)
        answer: Tensor = self.out((x + torch.tanh(x @ self.features)).transpose(1, 2))
        return answer


def _mask(generator: np.random.Generator) -> Array:
    return (np.arange(LENGTH) < generator.integers(LENGTH // 2, LENGTH + 1)).astype(np.int64)[None]


_IDS = tokens((1, LENGTH), WORDS)
_PAST = normal((1, HEADS, 16, WIDTH // HEADS))
SEQUENCES: tuple[ZooNetwork, ...] = (
    torch_network("vit", "classifier", Vit, feed_of(image=picture((1, 3, 32, 32), -2, 2))),
    torch_network("bert", "encoder, 2 outputs", Bert, feed_of(input_ids=_IDS, attention_mask=_mask)),
    torch_network("gpt", "decoder, tied table", Gpt, feed_of(input_ids=_IDS)),
    torch_network("llama", "decoder", Llama, feed_of(input_ids=_IDS)),
    torch_network("decoder-step", "decoder with keys and values", DecoderStep,
                  feed_of(token=tokens((1, 1), WORDS), keys=_PAST, values=_PAST)),
    torch_network("translator", "encoder and decoder", Translator,
                  feed_of(source=_IDS, target=tokens((1, 12), WORDS))),
    torch_network("lstm", "tagger", lambda: Tagger(nn.LSTM), feed_of(input_ids=_IDS)),
    torch_network("gru", "tagger", lambda: Tagger(nn.GRU), feed_of(input_ids=_IDS)),
    torch_network("rnn", "tagger", lambda: Tagger(nn.RNN), feed_of(input_ids=_IDS)),
    torch_network("experts", "mixture of experts", Experts, feed_of(x=normal((1, 12, WIDTH)))),
    torch_network("recommender", "4 inputs, 2 outputs", Recommender,
                  feed_of(user=tokens((1,), 5000), place=tokens((1,), 200), items=tokens((1, 8), 3000),
                          numbers=uniform((1, 13), -3, 9))),
    torch_network("keywords", "classifier of sound", KeywordSpotter, feed_of(spectrogram=picture((1, 40, 98), -8, 2))),
    torch_network("graph", "graph network", GraphNet,
                  feed_of(nodes=normal((1, 20, 16)), neighbours=uniform((1, 20, 20), 0, 0.1))),
    torch_network("graph-shared", "graph network, one graph", GraphNet,
                  feed_of(nodes=normal((1, 20, 16)),
                          neighbours=constant(np.full((1, 20, 20), 0.05, np.float32))), axes={"neighbours": None}),
    torch_network("forecaster", "weights on the left", Forecaster, feed_of(series=normal((1, 48, 16)))),
)  # fmt: skip
