import pytest
import torch


@pytest.fixture(autouse=True)
def weights_are_the_same_each_time():
    torch.manual_seed(0)


@pytest.fixture
def zero_and_flat():
    """Checks that a loss is 0 without a slope where both sides are ``x``, and more where the teacher's is ``other``."""
    def check(loss, x, other):
        x.requires_grad_()
        value = loss(x, x.detach())
        gradient, = torch.autograd.grad(value, x)
        assert value.item() == pytest.approx(0, abs=1e-12) and gradient.abs().max() < 1e-9
        assert loss(x, other) > 1e-3
    return check


@pytest.fixture
def same_under_bf16_autocast():
    """Checks that a loss of float32 is the same float32 under autocast, with gradients, and takes half precision."""
    def check(loss, s, t):
        exact = loss(s.requires_grad_(), t)
        with torch.autocast('cpu', torch.bfloat16):
            rounded = loss(s, t)
            rounded.backward()
        assert rounded.dtype == torch.float32 and rounded.dim() == 0 and s.grad.isfinite().all()
        torch.testing.assert_close(rounded, exact, rtol=1e-6, atol=0)
        half = loss(s.bfloat16(), t.bfloat16())
        assert half.dtype == torch.float32 and half.isfinite()
    return check
