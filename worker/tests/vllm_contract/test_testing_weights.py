"""The test plugin's weights through vLLM's own dummy loader: for every layer, alike each time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from vllm.config.load import LoadConfig
from vllm.model_executor.model_loader import dummy_loader

from lazygraph_vllm_testing.weights import use_fan_in

FAN_IN = 64


class Packed(torch.nn.Module):
    """As GPTQ keeps a layer: codes, scales by group, and what neither kernel nor sum may notice."""

    def __init__(self) -> None:
        super().__init__()
        for name, tensor in {
            "qweight": torch.zeros(FAN_IN // 8, 16, dtype=torch.int32),
            "qzeros": torch.full((1, 2), 77, dtype=torch.int32),
            "scales": torch.zeros(1, 16),
        }.items():
            self.register_parameter(name, torch.nn.Parameter(tensor, requires_grad=False))


class GemmaNorm(torch.nn.LayerNorm):
    """Multiplies by one more than its weight."""


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(FAN_IN, 512)
        self.twin = torch.nn.Linear(FAN_IN, 512)
        self.norm = torch.nn.LayerNorm(8)
        self.other_norm = GemmaNorm(8)
        self.packed = Packed()


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Any:
    # Set to what they are, so that what use_fan_in puts there is taken back.
    for owner, name in (
        (dummy_loader, "initialize_single_dummy_weight"),
        (dummy_loader.DummyModelLoader, "load_weights"),
    ):
        if hasattr(owner, name):
            monkeypatch.setattr(owner, name, getattr(owner, name))
    return dummy_loader.DummyModelLoader(LoadConfig(load_format="dummy"))


def test_a_layer_quantised_online_is_drawn_while_it_is_there(
    loader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Info:
        def __init__(self, online: bool) -> None:
            self.can_load = lambda: online

    seen: list[Any] = []

    def process(self: Any, layer: Any, info: Any) -> None:
        dummy_loader.initialize_single_dummy_weight(layer.weight)
        seen.append(layer.weight.detach().clone())
        layer.weight.data.zero_()

    def info(layer: Any) -> Info:
        return Info(isinstance(layer, torch.nn.Linear))

    offline = filled(loader)
    monkeypatch.setattr(dummy_loader, "get_layerwise_info", info)
    monkeypatch.setattr(dummy_loader.DummyModelLoader, "_process_online_quant_layer", process)
    weights = filled(loader)
    assert torch.equal(seen[0], offline["linear.weight"])
    assert weights["linear.weight"].count_nonzero() == 0
    assert torch.equal(weights["norm.weight"], torch.ones(8))


def filled(loader: Any, rank: int = 0) -> dict[str, Any]:
    use_fan_in(rank)
    model = Model()
    with torch.no_grad():
        loader.load_weights(model, None)
    return model.state_dict()


def test_matrices_have_the_spread_of_their_fan_in(loader: Any) -> None:
    weights = filled(loader)
    assert weights["linear.weight"].std().item() == pytest.approx(FAN_IN**-0.5, rel=0.05)
    assert not torch.equal(weights["linear.weight"], weights["twin.weight"])
    assert weights["linear.bias"].count_nonzero() == 0


class Layer(torch.nn.Module):
    """What a decoder's layer adds to its residual, attention over one token."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.v_proj = torch.nn.Linear(hidden, hidden, bias=False)
        self.o_proj = torch.nn.Linear(hidden, hidden, bias=False)
        self.gate_proj = torch.nn.Linear(hidden, 2 * hidden, bias=False)
        self.up_proj = torch.nn.Linear(hidden, 2 * hidden, bias=False)
        self.down_proj = torch.nn.Linear(2 * hidden, hidden, bias=False)

    def forward(self, x: Any) -> Any:
        x = x + self.o_proj(self.v_proj(normed(x)))
        gate = torch.nn.functional.silu(self.gate_proj(normed(x)))
        return x + self.down_proj(gate * self.up_proj(normed(x)))


class Pair(torch.nn.Module):
    """A target, and an EAGLE head with its embeddings and its logits."""

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(8192, hidden)
        self.layers = torch.nn.ModuleList(Layer(hidden) for _ in range(layers))
        self.lm_head = torch.nn.Linear(hidden, 8192, bias=False)
        self.fc = torch.nn.Linear(2 * hidden, hidden, bias=False)
        self.head = Layer(hidden)

    def agreement(self, tokens: Any) -> float:
        """Share of tokens after which both choose the same next one."""
        embedded = self.embed_tokens(tokens)
        target = embedded
        for layer in self.layers:
            target = layer(target)
        # The head has the state of the token before.
        drafted = self.head(self.fc(torch.cat((embedded, target.roll(1, 0)), dim=-1)))
        chosen, guessed = (self.lm_head(x).argmax(-1) for x in (normed(target), drafted))
        return float((chosen == guessed).float().mean())


def normed(x: Any) -> Any:
    return torch.nn.functional.rms_norm(x, x.shape[-1:])


@pytest.mark.parametrize("hidden", [128, 512])
def test_with_an_echo_a_head_agrees_with_a_target_of_any_width(loader: Any, hidden: int) -> None:
    agreement = {}
    for echo in (False, True):
        pair = Pair(hidden, layers=32)
        use_fan_in(0, echo=echo)
        with torch.no_grad():
            loader.load_weights(pair, None)
            agreement[echo] = pair.agreement(torch.arange(512))
    assert agreement[False] < 0.1
    # And layers still count: a graph that leaves them out would be seen.
    assert 0.8 < agreement[True] < 1


def test_norms_pass_on_what_they_get(loader: Any) -> None:
    weights = filled(loader)
    assert torch.equal(weights["norm.weight"], torch.ones(8))
    assert weights["norm.bias"].count_nonzero() == 0
    assert weights["other_norm.weight"].count_nonzero() == 0


def test_packed_codes_are_drawn_and_scaled_to_the_same_spread(loader: Any) -> None:
    weights = filled(loader)
    shifts = torch.arange(0, 32, 4)
    codes = (weights["packed.qweight"].unsqueeze(-1) >> shifts) & 15
    assert codes.unique().numel() == 16
    real = (codes - 7.5) * weights["packed.scales"][0, 0]
    assert real.std().item() == pytest.approx(FAN_IN**-0.5, rel=0.1)
    assert weights["packed.qzeros"].count_nonzero() == 0


def test_a_name_and_a_rank_draw_the_same_each_time(loader: Any) -> None:
    first, again = filled(loader), filled(loader)
    other = filled(loader, rank=1)
    for name, weight in first.items():
        assert torch.equal(weight, again[name]), name
    assert not torch.equal(first["linear.weight"], other["linear.weight"])
    assert not torch.equal(first["packed.qweight"], other["packed.qweight"])
