import math

import pytest
import torch

from uniaudio2.codec.dit import DiTConfig
from uniaudio2.codec.flow_matching import FlowConfig, FlowDecoder, rename_published


def make_decoder(**options: float | str) -> FlowDecoder:
    """A tiny decoder away from its zero initialisation."""
    torch.manual_seed(0)
    dit = DiTConfig(width=32, num_layers=2, num_heads=2)
    decoder = FlowDecoder(FlowConfig(**options), dit, latent_dim=6, condition_dim=10)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    return decoder.eval()


@pytest.fixture(scope="module")
def decoder() -> FlowDecoder:
    return make_decoder()


@pytest.fixture(scope="module")
def condition() -> torch.Tensor:
    return torch.randn(2, 12, 10, generator=torch.Generator().manual_seed(5))


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class TestCondition:
    def test_each_code_covers_two_latent_frames(self, decoder: FlowDecoder) -> None:
        quantized = torch.randn(2, 5, 10)
        condition = decoder.condition(quantized)
        assert condition.shape == (2, 10, 10)
        assert torch.equal(condition[:, 0::2], condition[:, 1::2])
        assert torch.equal(condition[:, 0::2], decoder.condition_projection(quantized))


class TestSample:
    def test_same_generator_same_result(self, decoder: FlowDecoder, condition: torch.Tensor) -> None:
        state = torch.get_rng_state()
        first = decoder.sample(condition, generator=seeded())
        assert torch.equal(first, decoder.sample(condition, generator=seeded()))
        assert not torch.equal(first, decoder.sample(condition, generator=seeded(4)))
        assert torch.equal(state, torch.get_rng_state()), "an explicit generator leaves the global one alone"

    @pytest.mark.parametrize("option", [{"guidance_scale": 1.0}, {"steps": 4}, {"solver": "midpoint"}])
    def test_every_option_matters(self, decoder: FlowDecoder, condition: torch.Tensor, option: dict) -> None:
        default = decoder.sample(condition, generator=seeded())
        assert not torch.allclose(default, decoder.sample(condition, generator=seeded(), **option), atol=1e-4)

    def test_one_guided_step_equals_the_formula(self, decoder: FlowDecoder, condition: torch.Tensor) -> None:
        noise = torch.randn(2, 12, 6)
        zero = torch.zeros_like(noise)
        t = torch.zeros(2)
        with torch.no_grad():
            with_condition = decoder.dit(torch.cat([noise, zero, condition], 2), t)
            without = decoder.dit(torch.cat([noise, zero, torch.zeros_like(condition)], 2), t)
        for scale in (0.0, 1.0, 2.5):
            expected = noise + without + scale * (with_condition - without)
            out = decoder.sample(condition, steps=1, guidance_scale=scale, noise=noise)
            torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)

    def test_no_second_pass_without_guidance(self, decoder: FlowDecoder, condition: torch.Tensor) -> None:
        rows: list[int] = []
        handle = decoder.dit.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
        decoder.sample(condition, steps=2, guidance_scale=1.0)
        decoder.sample(condition, steps=2, guidance_scale=1.5)
        decoder.sample(condition, steps=2, guidance_scale=1.0, solver="midpoint")
        handle.remove()
        assert rows == [2, 2, 4, 4, 2, 2, 2, 2]

    @pytest.mark.parametrize("solver", ["euler", "midpoint"])
    def test_context_is_kept_and_seen(self, decoder: FlowDecoder, condition: torch.Tensor, solver: str) -> None:
        context = torch.randn(2, 4, 6).clamp(-1, 1)
        out = decoder.sample(condition, context=context, generator=seeded(), solver=solver)
        assert out.shape == (2, 12, 6)
        assert torch.equal(out[:, :4], context)
        other = decoder.sample(condition, context=context + 1, generator=seeded(), solver=solver)
        assert not torch.allclose(out[:, 4:], other[:, 4:], atol=1e-4)

    def test_context_may_fill_everything(self, decoder: FlowDecoder, condition: torch.Tensor) -> None:
        context = torch.randn(2, 12, 6)
        assert torch.equal(decoder.sample(condition, context=context), context)

    def test_batched_equals_single(self, decoder: FlowDecoder, condition: torch.Tensor) -> None:
        context = torch.randn(2, 3, 6)
        batched = decoder.sample(condition, context=context, generator=[seeded(1), seeded(2)])
        for i in range(2):
            row = slice(i, i + 1)
            single = decoder.sample(condition[row], context=context[row], generator=seeded(i + 1))
            torch.testing.assert_close(batched[row], single, atol=1e-4, rtol=1e-4)

    def test_frames_beyond_the_end_get_the_empty_condition(self, decoder: FlowDecoder, condition: torch.Tensor) -> None:
        ends = torch.tensor([12, 7])
        out = decoder.sample(condition, num_frames=ends, generator=seeded())
        changed = condition.clone()
        changed[1, 7:] = 99.0
        assert torch.equal(out, decoder.sample(changed, num_frames=ends, generator=seeded()))
        filled = condition.clone()
        filled[:, 9:] = decoder.empty_condition.detach()
        expected = decoder.sample(filled, generator=seeded())
        torch.testing.assert_close(decoder.sample(condition, num_frames=9, generator=seeded()), expected)

    def test_latent_scale_is_invisible_outside(self, condition: torch.Tensor) -> None:
        plain, scaled = make_decoder(), make_decoder(latent_scale=2.0)
        context = torch.randn(2, 3, 6)
        noise = torch.randn(2, 12, 6)
        out = scaled.sample(condition, context=context, noise=noise)
        torch.testing.assert_close(out[:, :3], context)
        torch.testing.assert_close(out * 2, plain.sample(condition, context=context * 2, noise=noise))

    def test_solvers_equal_their_formulas(self, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder = make_decoder(sigma_min=0.0)
        # dx/dt = 2 t x, of which exp(t^2) x0 is the solution: the velocity depends on both the point and the time.
        monkeypatch.setattr(decoder.dit, "forward", lambda x, t: 2 * t[:, None, None] * x[..., :6])
        noise = torch.randn(1, 5, 6)
        factors = {"euler": 1.0, "midpoint": 1.0}
        for i in range(4):
            t, h = i / 4, 1 / 4
            factors["euler"] *= 1 + h * 2 * t
            factors["midpoint"] *= 1 + h * 2 * (t + h / 2) * (1 + h / 2 * 2 * t)
        for solver, factor in factors.items():
            out = decoder.sample(torch.zeros(1, 5, 10), steps=4, guidance_scale=1.0, solver=solver, noise=noise)
            torch.testing.assert_close(out, factor * noise)
        assert abs(factors["midpoint"] - math.e) < 0.2 * abs(factors["euler"] - math.e)

    def test_bad_options_are_named(self, decoder: FlowDecoder, condition: torch.Tensor) -> None:
        with pytest.raises(ValueError, match="at least 1 step"):
            decoder.sample(condition, steps=0)
        with pytest.raises(ValueError, match="'euler' or 'midpoint'"):
            decoder.sample(condition, solver="heun")  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="condition must be"):
            decoder.sample(condition[..., :9])
        with pytest.raises(ValueError, match="at most 12"):
            decoder.sample(condition, context=torch.zeros(2, 13, 6))
        with pytest.raises(ValueError, match="in-context latents"):
            decoder.sample(condition, context=torch.zeros(1, 3, 6))
        with pytest.raises(ValueError, match="noise must be"):
            decoder.sample(condition, noise=torch.zeros(2, 11, 6))
        with pytest.raises(ValueError, match="2 examples need as many generators"):
            decoder.sample(condition, generator=[seeded()])


class TestLoss:
    def test_equals_the_formula(self, decoder: FlowDecoder, condition: torch.Tensor) -> None:
        latents = torch.rand(2, 12, 6) * 2 - 1
        generator = seeded()
        t = torch.rand(2, generator=generator)
        noise = torch.randn(2, 12, 6, generator=generator)
        sigma_min = decoder.config.sigma_min
        time = t[:, None, None]
        x = (1 - (1 - sigma_min) * time) * noise + time * latents
        with torch.no_grad():
            velocity = decoder.dit(torch.cat([x, torch.zeros_like(x), condition], 2), t)
            expected = (velocity - (latents - (1 - sigma_min) * noise)).square().mean()
            torch.testing.assert_close(decoder.loss(latents, condition, generator=seeded()), expected)

    def test_perfect_velocity_has_no_loss_and_straight_paths_arrive(self, monkeypatch: pytest.MonkeyPatch) -> None:
        decoder = make_decoder(sigma_min=0.0)
        latents = torch.rand(1, 5, 6)
        noise = torch.randn(1, 5, 6)
        monkeypatch.setattr(decoder.dit, "forward", lambda x, t: latents - noise)
        out = decoder.sample(torch.zeros(1, 5, 10), steps=3, guidance_scale=1.0, noise=noise)
        torch.testing.assert_close(out, latents)

    def test_context_and_padding_have_no_loss(self, decoder: FlowDecoder, condition: torch.Tensor) -> None:
        latents = torch.randn(2, 12, 6, requires_grad=True)
        length = torch.tensor([4, 0])
        ends = torch.tensor([12, 9])
        captured: list[torch.Tensor] = []
        handle = decoder.dit.register_forward_hook(lambda module, inputs, out: captured.append(out))
        loss = decoder.loss(latents, condition, context_length=length, num_frames=ends, generator=seeded())
        handle.remove()
        (gradient,) = torch.autograd.grad(loss, captured[0])
        counted = gradient.abs().sum(2) > 0
        assert counted[0].tolist() == [False] * 4 + [True] * 8
        assert counted[1].tolist() == [True] * 9 + [False] * 3

    def test_padding_does_not_change_the_loss_of_a_position_free_network(self, decoder: FlowDecoder) -> None:
        latents, condition = torch.randn(1, 8, 6), torch.randn(1, 8, 10)
        ends = torch.tensor([5])
        loss = decoder.loss(latents, condition, num_frames=ends, generator=seeded())
        changed = condition.clone()
        changed[:, 5:] = 7.0
        assert torch.equal(loss, decoder.loss(latents, changed, num_frames=ends, generator=seeded()))

    def test_conditions_are_dropped_in_training_only(self, condition: torch.Tensor) -> None:
        decoder = make_decoder(condition_dropout=1.0, context_probability=0.0)
        latents = torch.randn(2, 12, 6)
        other = condition + 1
        assert not torch.equal(
            decoder.loss(latents, condition, generator=seeded()), decoder.loss(latents, other, generator=seeded())
        )
        decoder.train()
        assert torch.equal(
            decoder.loss(latents, condition, generator=seeded()), decoder.loss(latents, other, generator=seeded())
        )

    def test_context_is_drawn_in_training_only(self, condition: torch.Tensor) -> None:
        decoder = make_decoder(context_probability=1.0, condition_dropout=0.0)
        lengths = torch.full((2000,), 12)
        assert decoder._draw_context_length(lengths, seeded()).max() == 0
        decoder.train()
        drawn = decoder._draw_context_length(lengths, seeded())
        assert drawn.min() == 0
        assert drawn.max() == 6
        decoder.loss(torch.randn(2, 12, 6), condition).backward()

    def test_reproducible(self, condition: torch.Tensor) -> None:
        for sampling in ("uniform", "logit_normal"):
            decoder = make_decoder(time_sampling=sampling).train()
            latents = torch.randn(2, 12, 6)
            first = decoder.loss(latents, condition, generator=seeded())
            assert torch.equal(first, decoder.loss(latents, condition, generator=seeded()))
            assert not torch.equal(first, decoder.loss(latents, condition, generator=seeded(9)))

    def test_overfits_one_batch_and_then_samples_it(self) -> None:
        torch.manual_seed(0)
        config = FlowConfig(condition_dropout=0.0, context_probability=0.3, latent_scale=2.0)
        decoder = FlowDecoder(config, DiTConfig(width=64, num_layers=2, num_heads=4), latent_dim=4, condition_dim=8)
        latents = torch.tanh(torch.randn(2, 8, 4))
        quantized = torch.randn(2, 4, 8)
        optimizer = torch.optim.Adam(decoder.parameters(), lr=3e-3)
        losses: list[float] = []
        for _ in range(250):
            loss = decoder.loss(latents.repeat(8, 1, 1), decoder.condition(quantized).repeat(8, 1, 1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        first, last = sum(losses[:10]) / 10, sum(losses[-10:]) / 10
        assert last < 0.25 * first
        decoder.eval()
        out = decoder.sample(decoder.condition(quantized), steps=10, guidance_scale=1.0, generator=seeded())
        assert (out - latents).square().mean() < 0.3 * latents.square().mean()


def test_configs_are_checked() -> None:
    for wrong in ({"sigma_min": 1.0}, {"condition_dropout": 1.5}, {"latent_scale": 0.0}, {"time_sampling": "sobol"}):
        (name,) = wrong
        with pytest.raises(ValueError, match=name):
            FlowConfig(**wrong)  # pyright: ignore[reportArgumentType]


def test_published_names(decoder: FlowDecoder) -> None:
    state = decoder.state_dict()
    for key in (
        "cond_feature_emb.weight",
        "zero_cond_embedding1",
        "cfm_wrapper.estimator.transformer_blocks.0.ff.net.2.bias",
    ):
        assert rename_published(key) in state
    with pytest.raises(KeyError):
        rename_published("vq_acoustic.project_in.weight")


def test_a_smaller_noise_scale_gives_less_variety() -> None:
    torch.manual_seed(0)
    decoder = FlowDecoder(FlowConfig(), DiTConfig(width=16, num_layers=1, num_heads=2), latent_dim=4, condition_dim=8)
    condition = torch.randn(1, 6, 8)

    def spread(scale: float) -> float:
        draws = [
            decoder.eval().sample(
                condition, steps=2, guidance_scale=1.0, noise_scale=scale, generator=torch.Generator().manual_seed(seed)
            )
            for seed in range(4)
        ]
        return float(torch.stack(draws).std(0).mean())

    assert spread(0.0) == 0.0
    assert spread(0.0) < spread(0.3) < spread(1.0)
