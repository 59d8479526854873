"""Settings for the whole suite: float64 is on, so every test says the dtype that it means."""

import hypothesis
import jax
import pytest
import torch

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)  # the suite runs one process a core
hypothesis.settings.register_profile("jaxconv", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("jaxconv")

# Compiling is most of the suite's time. What XLA makes of the engines, with all its optimisations, is run and compared with
# torch here; the others test what is traced, and take a fifth less time without most of them.
OPTIMISED = {
    "test_benchmarks",
    "test_compiled",
    "test_confirmation",
    "test_conv",
    "test_conv_transpose",
    "test_engines",
    "test_odd_input",
    "test_rounding",
    "test_verify",
}


@pytest.fixture(autouse=True)
def _optimised_where_that_is_tested(request):
    jax.config.update("jax_disable_most_optimizations", request.module.__name__ not in OPTIMISED)
