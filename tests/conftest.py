"""Settings for the whole suite: float64 is on, so every test says the dtype that it means."""

import hypothesis
import jax
import torch

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)  # the suite runs one process a core
hypothesis.settings.register_profile("jaxconv", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("jaxconv")
